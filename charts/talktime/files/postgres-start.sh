#!/bin/sh
# Starts the trial database of the chart; `ready` asks whether it answers.
# Works in any image that has PostgreSQL's server programs: on PATH, or where Debian puts them.
set -eu
PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)"
export PATH

if [ "${1:-}" = ready ]; then
  exec pg_isready --quiet --host 127.0.0.1 --username talktime --dbname talktime
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # Into a side folder first: a pod killed in the middle of initdb starts over instead of finding half a cluster.
  rm -rf "$PGDATA" "$PGDATA.new"
  initdb --pgdata "$PGDATA.new" --username talktime --pwfile "$PASSWORD_FILE" \
    --auth-host scram-sha-256 --auth-local trust --encoding UTF8 --locale C.UTF-8 --data-checksums
  echo "host all all all scram-sha-256" >> "$PGDATA.new/pg_hba.conf"
  # A server without a port makes the database; only for that moment is its socket trusted.
  pg_ctl --pgdata "$PGDATA.new" --wait --silent -o "-c listen_addresses= -c unix_socket_directories=/tmp" start
  createdb --host /tmp --username talktime talktime
  pg_ctl --pgdata "$PGDATA.new" --wait --silent --mode fast stop
  sed -i 's/^local\(.*\)trust$/local\1scram-sha-256/' "$PGDATA.new/pg_hba.conf"
  mv "$PGDATA.new" "$PGDATA"
fi

# A volume that comes back with a new pod was made group-writable by its fsGroup; PostgreSQL refuses such a folder.
chmod 0700 "$PGDATA"

exec postgres -D "$PGDATA" \
  -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql -c timezone=UTC -c log_timezone=UTC \
  -c max_connections=100 -c shared_buffers=64MB -c dynamic_shared_memory_type=mmap
