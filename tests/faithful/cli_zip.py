"""A stand-in of AWS's version 2 installer: the same layout and commands, around the real CLI from PyPI.

The real archive cannot be had from a package registry. What is under test is that bootstrap.sh downloads, unpacks and runs
the installer, and that the heartbeat's hardened service can run what it installs.
"""
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

INSTALL = """#!/bin/sh
set -eu
here=$(dirname "$0")
mkdir -p /usr/local/aws-cli/v2/current
cp -r "$here/dist" /usr/local/aws-cli/v2/current/
ln -sf /usr/local/aws-cli/v2/current/dist/aws /usr/local/bin/aws
echo 'You can now run: /usr/local/bin/aws --version'
"""
AWS = """#!/bin/sh
# The installed CLI brings its own certificate bundle, which does not know the test's authority.
export AWS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt PYTHONPATH=/usr/local/aws-cli/v2/current/dist/python PYTHONDONTWRITEBYTECODE=1
exec /usr/bin/python3 -c 'import sys, awscli.clidriver; sys.exit(awscli.clidriver.main())' "$@"
"""


def build(cache):
    """The path of the archive; made once."""
    made = pathlib.Path(cache, "awscli-exe-linux.zip")
    if made.exists():
        return made
    scratch = pathlib.Path(cache, "awscli-exe")
    shutil.rmtree(scratch, ignore_errors=True)
    (scratch / "aws/dist").mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--root-user-action=ignore", "--target", scratch / "aws/dist/python", "awscli"], check=True)
    for name, text in (("aws/install", INSTALL), ("aws/dist/aws", AWS)):
        (scratch / name).write_text(text)
        (scratch / name).chmod(0o755)
    new = made.with_suffix(".new")
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in sorted(scratch.rglob("*")):
            archive.write(path, path.relative_to(scratch))
    os.rename(new, made)
    shutil.rmtree(scratch)
    return made
