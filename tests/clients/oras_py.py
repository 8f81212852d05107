"""Drives the Python library `oras` as a client.

    oras_py.py push HOST:PORT/NAME:TAG FILE...   (FILE is relative to the working directory)
    oras_py.py pull HOST:PORT/NAME:TAG FOLDER
"""

import sys

import oras.client


def main() -> None:
    verb, target, *rest = sys.argv[1:]
    client = oras.client.OrasClient(hostname=target.split("/")[0], insecure=True)
    if verb == "push":
        answer = client.push(target=target, files=rest, quiet=True)
        assert answer.status_code == 201, (answer.status_code, answer.text)
    elif verb == "pull":
        for path in client.pull(target=target, outdir=rest[0]):
            print(path)
    else:
        sys.exit(f"unknown verb {verb}")


main()
