/** How many numbered databases the shared Redis has. Number 0 only holds the counter that hands out the others. */
export const redisDatabases = 8_192;
