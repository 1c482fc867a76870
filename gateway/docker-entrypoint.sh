#!/bin/sh
# Renders the same templates as `python -m gateway run`, in the official nginx image, which has no Python.
set -eu
umask 077

fail() { echo "gateway: $1" >&2; exit 2; }

: "${GATEWAY_HOME:=/etc/gateway}" "${GATEWAY_USER:=vitrine}" "${GATEWAY_BIND:=0.0.0.0}" "${GATEWAY_PORT:=8080}" "${GATEWAY_TLS_PORT:=8443}"
: "${SERVING_HOST:=serving}" "${SERVING_GRPC_PORT:=8500}" "${SERVING_REST_PORT:=8501}"
: "${UI_HOST:=ui}" "${UI_PORT:=8502}" "${TLS_CERT:=}" "${TLS_KEY:=}" "${RUN_DIR:=/run/gateway}"
: "${GATEWAY_WORKERS:=auto}" "${GATEWAY_TIMEOUT_S:=60}" "${GATEWAY_MAX_CONNECTIONS:=2000}" "${GATEWAY_PASSWORD:=}"

[ "${#GATEWAY_PASSWORD}" -ge 12 ] ||
    fail "GATEWAY_PASSWORD is missing or shorter than 12 characters: run \`python -m gateway credentials\` first"
case "$GATEWAY_USER" in
    [!A-Za-z0-9]* | *[!A-Za-z0-9._@-]*)
        fail "GATEWAY_USER may hold letters, digits and . _ @ - only, and begins with a letter or digit" ;;
esac
USER_PATTERN=$(printf '%s' "$GATEWAY_USER" | sed 's/[.]/[.]/g')
# As gateway/passwords.py.
case "$GATEWAY_PASSWORD" in
    *[!A-Za-z0-9%+,./:=@^_-]*) fail "GATEWAY_PASSWORD may hold letters, digits and % + , . / : = @ ^ _ - only" ;;
esac
left=$(printf '%s\n' "$GATEWAY_PASSWORD" | sed -E -e "s/$USER_PATTERN//gI" -f "$GATEWAY_HOME/weak_passwords.sed")
[ "${#left}" -ge 8 ] ||
    fail "GATEWAY_PASSWORD is a known weak one, or made of a word, a run or a repetition: use a random one"
case "${GATEWAY_ACCESS_LOG:=all}" in
    all) LOG_ERRORS=1 LOG_ALL=1 ;;
    errors) LOG_ERRORS=1 LOG_ALL=0 ;;
    off) LOG_ERRORS=0 LOG_ALL=0 ;;
    *) fail "GATEWAY_ACCESS_LOG=$GATEWAY_ACCESS_LOG: expected all, errors or off" ;;
esac
[ -n "${GATEWAY_COOKIE_SECRET:-}" ] || GATEWAY_COOKIE_SECRET=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')
# UI and health check use the cleartext port within the container network; who else reaches it, compose's port list says.
CLEAR_BIND=$GATEWAY_BIND

# Compose's DNS (127.0.0.11) or the cluster's: a service that comes back elsewhere is found again.
RESOLVER=$(awk '$1 == "nameserver" { print index($2, ":") ? "[" $2 "]" : $2; exit }' /etc/resolv.conf)
[ -n "$RESOLVER" ] || fail "no nameserver in /etc/resolv.conf"

rm -rf "${RUN_DIR:?}"/*
mkdir -p "$RUN_DIR/main.d" "$RUN_DIR/server.d" "$RUN_DIR/empty"
cp "$GATEWAY_HOME"/conf/* "$RUN_DIR"
# As gateway/render.py: what the password is known by.
printf '%s' "$GATEWAY_PASSWORD" | openssl passwd -apr1 -stdin | sed "s|^|$GATEWAY_USER:|" > "$RUN_DIR/htpasswd"
salt=$(od -An -tx1 -N16 /dev/urandom | tr -d ' \n')
header="Basic $(printf '%s:%s' "$GATEWAY_USER" "$GATEWAY_PASSWORD" | openssl base64 -A)"
fingerprint=$(printf '%s' "$salt$header" | openssl dgst -md5 -binary | openssl base64 -A | tr '+/' '-_' | tr -d '=')
printf 'secure_link "%s";\nsecure_link_md5 "%s$http_authorization";\n' "$fingerprint" "$salt" > "$RUN_DIR/fingerprint.conf"

# Further users, when the host's folder is mounted and has the file; changes there count at once.
: "${GATEWAY_USERS_FILE:=$GATEWAY_HOME/users/htpasswd}"
USERS_FILE=$GATEWAY_USERS_FILE
[ -r "$USERS_FILE" ] || USERS_FILE=$RUN_DIR/htpasswd

nginx -e stderr -V 2>&1 | grep -q -- --add-module=njs ||
    echo "load_module /usr/lib/nginx/modules/ngx_http_js_module.so;" > "$RUN_DIR/main.d/njs.conf"

export GATEWAY_USER GATEWAY_BIND GATEWAY_PORT GATEWAY_TLS_PORT GATEWAY_WORKERS GATEWAY_TIMEOUT_S GATEWAY_MAX_CONNECTIONS \
    SERVING_HOST SERVING_GRPC_PORT SERVING_REST_PORT UI_HOST UI_PORT TLS_CERT TLS_KEY RUN_DIR RESOLVER USERS_FILE USER_PATTERN CLEAR_BIND \
    LOG_ERRORS LOG_ALL GATEWAY_COOKIE_SECRET
fill() {                        # as gateway/render.py: every dollar-brace name in capitals
    awk '{
        while (match($0, /\$\{[A-Z_]+\}/)) {
            name = substr($0, RSTART + 2, RLENGTH - 3)
            if (!(name in ENVIRON)) { print "gateway: no value for " name > "/dev/stderr"; exit 1 }
            $0 = substr($0, 1, RSTART - 1) ENVIRON[name] substr($0, RSTART + RLENGTH)
        }
        print
    }' "$1"
}
fill "$GATEWAY_HOME"/nginx.conf.template > "$RUN_DIR/nginx.conf"
if [ -n "$TLS_CERT$TLS_KEY" ]; then
    { [ -r "$TLS_CERT" ] && [ -r "$TLS_KEY" ]; } || fail "TLS needs both TLS_CERT and TLS_KEY, readable for user $(id -u); with compose also -f gateway/docker-compose.tls.yml, as make docker-up adds it"
    fill "$GATEWAY_HOME"/tls.conf.template > "$RUN_DIR/server.d/tls.conf"
fi

ulimit -n "$(ulimit -Hn)"       # two files a proxied connection
unset GATEWAY_PASSWORD
exec nginx -e stderr -p "$RUN_DIR" -c "$RUN_DIR/nginx.conf"
