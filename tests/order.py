"""Which files of tests begin first, where several processes share them file by file."""


def longest_first(items):
    """The tests, those of long files ahead: at the end no process goes on alone.

    Of the files that need the run of the micro preset one begins, and its process makes the run. The others come after
    the long ones, or all processes would wait for it.
    """
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    long = {path for path, tests in files.items() if any(one.get_closest_marker("long") for one in tests)}
    waiting = {path for path, tests in files.items() if any("micro_run" in one.fixturenames for one in tests)}
    maker = next(iter(sorted(waiting, key=lambda path: (path not in long, path))), None)
    ranks = {path: (path != maker, path in waiting or path not in long, path not in waiting) for path in files}
    return [item for path in sorted(files, key=ranks.__getitem__) for item in files[path]]
