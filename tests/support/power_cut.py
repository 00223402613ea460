"""Cuts the power of one ext4 file system: what was not synced is gone when it is mounted again.

usage: power_cut.py MOUNT_POINT IMAGE. Says "ready", waits for a line, then shuts the file system down with
EXT4_IOC_SHUTDOWN and EXT4_GOING_FLAGS_NOLOGFLUSH (Linux, fs/ext4/ext4.h), and says "cut". It refuses anything but the
file system that a loop device makes of IMAGE, so that no path, however wrong, can bring down another one.
"""

import fcntl
import os
import struct
import sys

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
NOLOGFLUSH = 2
LOOP_MAJOR = 7


def main():
    mount_point, image = sys.argv[1:]
    folder = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY)
    device = os.fstat(folder).st_dev
    if os.major(device) != LOOP_MAJOR:
        sys.exit(f"{mount_point} is not on a loop device")
    with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/loop/backing_file", encoding="utf-8") as file:
        backing = file.read().strip()
    if os.path.realpath(backing) != os.path.realpath(image):
        sys.exit(f"{mount_point} is on a loop device of {backing}, not of {image}")
    print("ready", flush=True)
    if not sys.stdin.readline():
        sys.exit("nobody asked for the cut")
    fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
    print("cut", flush=True)


main()
