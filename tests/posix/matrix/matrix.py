"""Prints what a file system does, one line a call: python3 matrix.py DIRECTORY [part of a case's name...]. Run as root."""
import sys

import bench
import names  # noqa: F401
import attributes  # noqa: F401
import contents  # noqa: F401
import linux  # noqa: F401

bench.run(sys.argv[1], sys.argv[2:])
