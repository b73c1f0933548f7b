# Two static binaries and the certificates of the public authorities, nothing else: no shell, no packages. Runs as a
# user without a name or rights and writes to /data alone, so --read-only takes nothing from it. `make reproducible`
# builds the same bytes.
#
#   docker build -t tidewire .
#   docker run --read-only -p 8080:8080 -v tidewire-data:/data \
#     -e TIDEWIRE_KAFKA_BROKERS=kafka:9092 -e TIDEWIRE_KAFKA_TOPICS=prices tidewire

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X github.com/tidewire/tidewire/cmd/internal/node.version=${VERSION}" \
      -o /out/ ./cmd/tidewire ./cmd/tidectl \
 && mkdir /out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/tidewire /out/tidectl /usr/local/bin/
# A new volume takes its owner from this folder.
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
ENV TIDEWIRE_DATA_DIR=/data PATH=/usr/local/bin
VOLUME /data
# Clients; admin (on the loopback interface unless TIDEWIRE_ADMIN_LISTEN says otherwise); node to node.
EXPOSE 8080 8081 7070
# SIGTERM: hand over, send the clients elsewhere, stop.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["tidewire", "healthcheck"]
ENTRYPOINT ["tidewire"]
