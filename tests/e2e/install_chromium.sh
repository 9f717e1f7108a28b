#!/usr/bin/env bash
# A Chromium to drive and Chinese fonts to look at: the system's if there is one, else Debian's, else Playwright's.
set -euo pipefail
bin=$1
has() { command -v "$1" >/dev/null 2>&1; }
if ! has chromium && ! has chromium-browser && ! has google-chrome && has apt-get && [ "$(id -u)" = 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk >/dev/null
fi
if has chromium || has chromium-browser || has google-chrome; then
  exit 0
fi
"$bin/playwright" install chromium
