"""Makes one torrent with libtorrent's Python binding, and tells what the making alone took."""
import json
import os
import re
import resource
import sys
import time

import libtorrent as lt

options = json.loads(sys.argv[1])
flags = {'v1': lt.create_torrent.v1_only, 'v2': lt.create_torrent.v2_only, 'hybrid': 0}[options['format']]


def counted(path, pattern):
    """One number of the kernel's tables; None where it has none."""
    try:
        with open(path, encoding='ascii') as table:
            found = re.search(pattern, table.read(), re.M)
        return int(found.group(1)) if found else None
    except OSError:
        return None


def bytes_read():
    return counted('/proc/self/io', r'^rchar: (\d+)$')


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def make():
    files = lt.file_storage()
    files.add_file(options['name'], os.path.getsize(options['path']))
    torrent = lt.create_torrent(files, options['pieceLength'], flags)
    lt.set_piece_hashes(torrent, os.path.dirname(options['path']))
    return lt.bencode(torrent.generate())


anonymous_kib = counted('/proc/self/status', r'^RssAnon:\s+(\d+) kB$')
cpu, read, started = cpu_seconds(), bytes_read(), time.perf_counter()
torrent_file = make()
figures = {'seconds': time.perf_counter() - started, 'cpuSeconds': cpu_seconds() - cpu}
if read is not None:
    figures['readBytes'] = bytes_read() - read
if anonymous_kib is not None:
    figures['anonymousBytesBefore'] = anonymous_kib * 1024
with open(options['out'], 'wb') as out:
    out.write(torrent_file)
print(json.dumps({'event': 'done', **figures}, separators=(',', ':')), flush=True)
