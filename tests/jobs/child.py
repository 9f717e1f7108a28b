"""The child of tests/jobs/kinds.py: makes lines, with a helper process of its own; says if another child runs.

After HOLD_AT lines it waits for the file `go`, so that a test can do its worst while the child is known to be at work.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HOLD_AT = 5
path, todo = Path(sys.argv[1]), sys.argv[2]
should_stop = []
signal.signal(signal.SIGTERM, lambda *_: should_stop.append(1))
lock = path.with_suffix(".lock").open("w")
with path.with_suffix(".starts").open("a") as file:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until this process is gone, however that happens
        file.write(f"{os.getpid()}\n")
    except BlockingIOError:
        file.write("while another ran\n")
helper = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(120)"], start_new_session=True)
for n in todo.split(",") if todo else []:
    while int(n) >= HOLD_AT and not should_stop and not (path.parent / "go").exists():
        time.sleep(0.01)
    if should_stop:
        break
    print(json.dumps({"type": "line", "n": int(n), "text": "x" * 10_000}), flush=True)
