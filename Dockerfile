# test/deploy carries out these steps by hand, so that they stay true where no Docker engine is at hand.

FROM node:24-slim AS build
WORKDIR /app
# First what changes seldom: an edit of the sources then does not install everything again.
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY scripts/build.ts scripts/
COPY src src/
RUN npm run build
RUN npm prune --omit=dev --ignore-scripts

FROM node:24-slim
WORKDIR /app
COPY package.json LICENSE ./
COPY scripts/healthcheck.ts scripts/
COPY --from=build /app/node_modules node_modules/
COPY --from=build /app/dist dist/
# 1000 is the image's user `node`; as a number, a cluster can see that it is not root.
RUN mkdir -p /data && chown 1000:1000 /data
USER 1000:1000
VOLUME /data
# Beyond loopback the server wants TLS and API keys, or HOLDFAST_INSECURE=true where the network itself keeps strangers out.
ENV NODE_ENV=production HOLDFAST_HOST=0.0.0.0 HOLDFAST_DATA_DIR=/data
EXPOSE 7420 7421
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["node", "scripts/healthcheck.ts"]
CMD ["node", "dist/main.js"]
