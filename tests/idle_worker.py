"""A worker of a study that trains nothing: what it does with a trial is the trial's name. See `test_pool`."""

import json
import os
import signal
import sys
import time
from pathlib import Path


def tell(**event: str) -> None:
    print(json.dumps({"trial": "", **event}), flush=True)


def main(folder: Path) -> None:
    if (folder / "broken").exists():
        sys.exit(1)
    tell(kind="ready")
    for name in map(str.strip, sys.stdin):
        with (folder / "given").open("a") as file:
            file.write(f"{os.getpid()} {name}\n")
        if name == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "slow":
            time.sleep(1.0)
        if name == "leave":
            tell(kind="ended", trial=name, state="saved", reason="")
            sys.exit(75)
        begun = (folder / "given").read_text().split().count(name)
        busy = name == "busy" or (name == "busy-once" and begun == 1)
        tell(kind="ended", trial=name, state="busy" if busy else "finished", reason="")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
