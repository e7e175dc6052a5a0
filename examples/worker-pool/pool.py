"""Reads documents in parallel processes: python pool.py invoice-7:80 invoice-8:20, each with its number of pages."""

import sys
import time
from multiprocessing import Pool

import docprogress


def read(argument: str) -> str:
    document_id, _, pages = argument.rpartition(":")
    # One publisher a process, however often it is asked for. Nothing of it is shared over a fork.
    with docprogress.connect().track(document_id) as tracker:
        tracker.start(total=int(pages))
        for _ in range(int(pages)):
            time.sleep(0.01)  # the work
            tracker.advance()
    return document_id


if __name__ == "__main__":
    with Pool(4) as pool:
        for document_id in pool.imap_unordered(read, sys.argv[1:]):
            print(document_id, "is read", flush=True)
        # Unlike leaving the block, which kills them, this lets the processes say their last words.
        pool.close()
        pool.join()
