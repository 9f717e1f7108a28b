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

run unit -n 2 -m "not e2e and not services"
if answers 127.0.0.1 5432; then
  DATABASE_URL=${TEST_DATABASE_URL:-postgres://postgres@127.0.0.1:5432/postgres} \
    run postgresql -n 2 --create-db -m "not e2e" tests/annotation tests/jobs tests/architecture
else
  echo "== postgresql: nothing answers on 127.0.0.1:5432, so its tests are left out"
fi
run services -m "services"
run e2e -m "e2e"
"$bin/python" - "$reports" <<'PY'
import pathlib, sys, xml.etree.ElementTree as tree
suites = [s for f in pathlib.Path(sys.argv[1]).glob("*.xml") for s in tree.parse(f).getroot().iter("testsuite")]
total, bad, skipped = (sum(int(s.get(k, 0)) for s in suites) for k in ("tests", "failures", "skipped"))
bad += sum(int(s.get("errors", 0)) for s in suites)
print(f"{total - bad - skipped} passed, {bad} failed, {skipped} skipped")
PY
