#!/usr/bin/env bash
# Resolves the .in files into pinned lists, without installing anything. Hashes are left out on purpose: torch 2.13.0
# is built once for CPU and once for CUDA under the same version, and either may serve.
set -euo pipefail
bin=$1
lock() { # lock OUT IN...: every package that the IN files need, at the version pip chooses today
  local out=$1; shift
  local args=(); for file in "$@"; do args+=(-r "$file"); done
  "$bin/pip" install --quiet --dry-run --ignore-installed --report - "${args[@]}" | "$bin/python" -c '
import json, sys
names = {(i["metadata"]["name"], i["metadata"]["version"].split("+")[0]) for i in json.load(sys.stdin)["install"]}
print("# Written by make lock; edit the .in file instead.")
for name, version in sorted(names, key=lambda pair: pair[0].lower()):
    print(f"{name}=={version}")' > "$out.new"
  mv "$out.new" "$out"
}
lock requirements.txt requirements.in
lock requirements-dev.txt requirements.txt requirements-dev.in
# The development list holds only what the site's list does not.
grep -vxFf requirements.txt requirements-dev.txt > requirements-dev.new && mv requirements-dev.new requirements-dev.txt
sed -i '1i # Written by make lock; edit the .in file instead.' requirements-dev.txt
