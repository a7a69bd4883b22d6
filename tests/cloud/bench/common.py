"""What the contenders' scripts share: orders from standard input, answers to standard output, the first command on a node."""
import json
import subprocess
import sys
import time

# Longest wait for a node; without KVM and beside others a guest takes its time.
LIMIT_S = 300


def answer(value):
    print(json.dumps(value), flush=True)


def obey(orders):
    """Answers that it is there, then does each order until `end`."""
    answer("ready")
    for line in sys.stdin:
        order, *arguments = line.split()
        answer(orders[order](*arguments))
        if order == "end":
            return


def make_key(folder):
    """A key without a passphrase; its file and its public half."""
    file = folder / "sdk-key"
    file.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return file, file.with_suffix(".pub").read_text()


def first_command(address, key):
    """Until a command has run on the node. Whose host key that is, nobody asks: these contenders take what is there."""
    command = [
        "ssh", "-i", str(key), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "root@%s" % address, "true",
    ]
    end = time.monotonic() + LIMIT_S
    while True:
        asked = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if asked.returncode == 0:
            return
        if time.monotonic() > end:
            raise RuntimeError("no answer of %s: %s" % (address, asked.stderr))
        time.sleep(1)
