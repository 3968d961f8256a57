# The program alone, as goreleaser lays it for each platform: no shell, no
# certificates, no home directory, and nobody's user.
FROM scratch
ARG TARGETPLATFORM
COPY $TARGETPLATFORM/step-revoke-plugin LICENSE extras/THIRD-PARTY-NOTICES /
USER 65532:65532
ENTRYPOINT ["/step-revoke-plugin"]
