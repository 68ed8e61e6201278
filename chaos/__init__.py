"""Trouble for the library: killed processes, damaged files, full disks, missing permissions, hostile files. Runs on Linux."""
