#!/usr/bin/env bash
# All tests: SQLite first, then PostgreSQL and the brokers where they answer, then the browser.
set -euo pipefail
bin=$1
answers() { "$bin/python" - "$1" "$2" <<'PY'
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 1).close()
except OSError:
    sys.exit(1)
PY
}
# A report of each run is joined into one closing line, so that the whole is seen at a glance.
reports=$(mktemp -d)
run() { name=$1; shift; echo "== $name"; "$bin/python" -m pytest -q --junitxml="$reports/$name.xml" "$@"; }

# What is slow starts processes that know no database: once is enough. With workers and brokers both are tried below.
run unit -n 2 -m "not e2e and not services"
if answers 127.0.0.1 5432; then
  DATABASE_URL=${TEST_DATABASE_URL:-postgres://postgres@127.0.0.1:5432/postgres} \
    run postgresql -n 2 --create-db --database-only -m "not e2e and not services and not slow"
else
  echo "== postgresql: nothing answers on 127.0.0.1:5432, so its tests are left out"
fi
# Tests with brokers mostly wait: beside those with a browser they take no time of their own.
run services -m "services" > "$reports/services.log" 2>&1 &
services=$!
failed=0
run e2e -n 2 --dist worksteal -m "e2e" tests/e2e || failed=1
wait "$services" || failed=1
cat "$reports/services.log"
"$bin/python" - "$reports" <<'PY'
import pathlib, sys, xml.etree.ElementTree as tree
suites = [s for f in pathlib.Path(sys.argv[1]).glob("*.xml") for s in tree.parse(f).getroot().iter("testsuite")]
total, bad, skipped = (sum(int(s.get(k, 0)) for s in suites) for k in ("tests", "failures", "skipped"))
bad += sum(int(s.get("errors", 0)) for s in suites)
print(f"{total - bad - skipped} passed, {bad} failed, {skipped} skipped")
PY
exit "$failed"
