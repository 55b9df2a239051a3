"""Programs that attack the sandbox, or try to pass without solving anything.

All are asked for `f(3)`. An attack returns ANSWER from it when it succeeded, and else the name of what stopped it, so that
"failed" means contained. A forgery has to find the right answer, a number that differs in every run, or to make the
judge believe it without; `forgeries` are whole programs.

Names in capitals stand for what a test fills in: SECRET_FILE and CANARY_DIR are outside, PARENT is the test's process,
PORT and ABSTRACT are a TCP port and a Unix socket that it listens at.
"""

ANSWER = 424242

FRAME = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def attack():
{body}
def f(x):
    try:
        return ANSWER if attack() else "refused"
    except BaseException as error:
        return type(error).__name__
"""

SEARCH = r"""
def right(value):
    import re
    if isinstance(value, int) and value // 100000 == LEAD: return value
    if isinstance(value, (str, bytes)):
        text = value if isinstance(value, str) else value.decode("latin-1")
        found = re.search(r"\bLEAD\d{5}\b", text)
        return int(found[0]) if found else None
"""


def sections(text: str) -> dict[str, str]:
    """Name -> program, of a text in which a line "### name" begins each."""
    parts = [part.partition("\n") for part in text.split("### ")[1:]]
    return {name: body.strip("\n").replace("SEARCH", SEARCH) for name, _, body in parts}


ATTACKS = sections(r"""
### read shadow
return open('/etc/shadow').read()

### read passwd
return open('/etc/passwd').read()

### read root's home
import os
return os.listdir('/root/.ssh') or os.listdir(os.path.expanduser('~root'))

### read a file outside
return open('SECRET_FILE').read()

### list a folder outside
import os
return os.listdir('CANARY_DIR')

### symlink
import os
os.symlink('SECRET_FILE', '/tmp/link')
return open('/tmp/link').read()

### hard link
import os
os.link('SECRET_FILE', '/tmp/hard')
return open('/tmp/hard').read()

### dot dot
return open('../../../../..SECRET_FILE').read()

### write outside
open('CANARY_DIR/written', 'w').write('x')
return True

### write home
import os
open(os.path.expanduser('~') + '/seedfold-hostile', 'w').write('x')
return True

### write root
open('/seedfold-hostile', 'w').write('x')
return True

### write the library
import os
open(os.path.dirname(os.__file__) + '/hostile.py', 'w').write('x')
return True

### write the harness
open(__import__('sys').argv[0], 'a').write('x')
return True

### make a folder
import os
os.mkdir('/home/hostile')
return True

### device
import os, stat
os.mknod('/tmp/d', 0o600 | stat.S_IFBLK, os.makedev(254, 0))
return open('/tmp/d', 'rb').read(1)

### block device
import glob
return glob.glob('/dev/[svn]d*') or glob.glob('/dev/nvidia*')

### sysfs
import os
return os.listdir('/sys')

### cgroups
open('/sys/fs/cgroup/cgroup.procs').read()
return True

### handle
libc.open_by_handle_at.restype = ctypes.c_int
handle = (ctypes.c_char * 64)()
return libc.open_by_handle_at(-100, handle, 0) >= 0

### proc root
return open('/proc/1/rootSECRET_FILE').read()

### proc parent's root
return open('/proc/PARENT/rootSECRET_FILE').read()

### proc fd
import os
return os.listdir('/proc/self/fd')

### proc mem
return open('/proc/self/mem', 'rb')

### proc environ
return open('/proc/1/environ', 'rb').read()

### proc cmdline
import glob
return glob.glob('/proc/[0-9]*/cmdline')

### mount proc
os.mkdir('/tmp/p')
return libc.mount(b'proc', b'/tmp/p', b'proc', 0, None) == 0

### environment
import os
return any('SEEDFOLD_CANARY' in name for name in os.environ)

### inherited descriptors
import os
for fd in range(3, 300):
    try:
        os.lseek(fd, 0, 0)
        if os.read(fd, 1): return True
    except OSError:
        pass

### fork
import os
if os.fork() == 0: os._exit(0)
return True

### fork bomb
import os
while True: os.fork()

### vfork
return libc.syscall(58) >= 0

### clone3
arguments = (ctypes.c_uint64 * 8)(0, 0, 0, 0, 17)
return libc.syscall(435, arguments, 64) >= 0

### double fork
import os
if os.fork() == 0:
    if os.fork() == 0:
        while True: pass
    os._exit(0)
return True

### daemon
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(60)
    os._exit(0)
return True

### subprocess
import subprocess
return subprocess.run(['/bin/sh', '-c', 'true']).returncode == 0

### another Python
import subprocess, sys
return subprocess.run([sys.executable, '-c', '']).returncode == 0

### spawn
import os, sys
return os.posix_spawn(sys.executable, ['python', '-c', ''], {})

### shell
import os
return os.system('true') == 0

### multiprocessing
import multiprocessing
p = multiprocessing.Process(target=print)
p.start()
return True

### threads
import threading, time
for _ in range(10_000): threading.Thread(target=time.sleep, args=(60,)).start()
return True

### signal the parent
import os, signal
os.kill(PARENT, 0)
return PARENT > 9

### signal all
import os, signal
os.kill(-1, signal.SIGKILL)
return True

### signal the group
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.killpg(PARENT, signal.SIGTERM)
return True

### stop init
import os, signal, time
os.kill(1, signal.SIGKILL)
time.sleep(0.2)
os.kill(1, 0)
return False

### ptrace
return libc.ptrace(16, os.getppid(), 0, 0) == 0

### read another's memory
b = ctypes.create_string_buffer(8)
class V(ctypes.Structure): _fields_ = [('b', ctypes.c_void_p), ('n', ctypes.c_size_t)]
v = V(ctypes.addressof(b), 8)
return libc.process_vm_readv(os.getpid(), ctypes.byref(v), 1, ctypes.byref(v), 1, 0) > 0

### terminal
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSTI, b'x')
return True

### tcp
import socket
return socket.create_connection(('127.0.0.1', PORT), 2)

### udp
import socket
return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))

### unix socket
import socket
s = socket.socket(socket.AF_UNIX)
s.connect('CANARY_DIR/socket')
return True

### abstract socket
import socket
s = socket.socket(socket.AF_UNIX)
s.connect('\0ABSTRACT')
return True

### listen
import socket
s = socket.socket()
s.bind(('', 0))
s.listen()
return True

### raw socket
import socket
return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)

### netlink
import socket
return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)

### name lookup
import socket
return socket.getaddrinfo('localhost', 80)

### fetch
import urllib.request
return urllib.request.urlopen('http://127.0.0.1:PORT', timeout=2)

### interfaces
import socket
return [name for _, name in socket.if_nameindex() if name != 'lo']

### mount
return libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0

### remount
return libc.mount(b'none', b'/', None, 32, None) == 0

### unmount
return libc.umount2(b'/tmp', 2) == 0

### chroot
import os
os.chroot('/tmp')
return True

### unshare
return libc.unshare(0x10000000) == 0

### unshare mounts
return libc.unshare(0x00020000) == 0

### io_uring
p = ctypes.create_string_buffer(256)
return libc.syscall(425, 4, p) >= 0

### bpf
return libc.syscall(321, 0, ctypes.create_string_buffer(128), 128) >= 0

### keyring
return libc.syscall(250, 0, -3, 1) >= 0

### i386 calls
import mmap
m = mmap.mmap(-1, 4096, prot=7)
m.write(b'\xb8\x14\x00\x00\x00\xcd\x80\xc3')
return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))() > 0

### host name
import os
os.uname().nodename == 'sandbox'
return __import__('socket').sethostname('x') is None

### raise CPU
import resource as r
r.setrlimit(r.RLIMIT_CPU, (99, 99))
return True

### raise memory
import resource as r
r.setrlimit(r.RLIMIT_AS, (-1, -1))
return True

### raise processes
import resource as r
r.setrlimit(r.RLIMIT_NPROC, (99, 99))
return True

### nice
import os
os.nice(-5)
return True

### real time
import os
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
return True

### huge allocation
return bytearray(4 << 30)

### huge list
a = [0]
while True: a += a

### huge mapping
import mmap
return mmap.mmap(-1, 4 << 30)

### memory file
import os
return os.memfd_create('x')

### large file
f = open('/tmp/large', 'wb')
for _ in range(100): f.write(b'x' << 20 if 0 else bytes(1 << 20))
return True

### full disk
for n in range(40):
    with open(f'/tmp/{n}', 'wb') as f: f.write(bytes(1 << 20))
return True

### many files open
return [open('/tmp/x', 'w') for _ in range(2000)]

### own user
import os
os.setuid(12345)
return True
""")
"""Body of a function that returns something true where the attack succeeds."""

WITHOUT = (
    "read passwd", "read a file outside", "list a folder outside", "symlink", "dot dot", "write outside",
    "proc fd", "proc mem", "environment", "fork", "subprocess", "another Python", "spawn", "shell", "multiprocessing",
    "signal the parent", "read another's memory", "tcp", "udp", "unix socket", "abstract socket", "listen", "name lookup",
    "memory file", "large file", "full disk", "raise CPU",
)  # fmt: skip
"""Attacks that succeed outside the sandbox and may be tried there: what is contained is no mistake in the attack."""

FORGERIES = sections(r"""
### exit
import sys; sys.exit(0)

### exit at once
import os; os._exit(0)

### become another program
import os, sys
own = "import os\nfor fd in range(64):\n    try: os.write(fd, b'[1]\\n')\n    except OSError: pass"
os.execv(sys.executable, [sys.executable, '-S', '-c', own])

### exit inside
def f(x): raise SystemExit(0)

### exit at once inside
import os
def f(x): os._exit(0)

### say passed
print('passed'); print('{"passed": true, "outputs": null}')
def f(x): print('ok')

### write to every descriptor
import os
for fd in range(64):
    for text in (b'{"passed": true, "outputs": "1"}\n', b'ready\n'):
        try: os.write(fd, text)
        except OSError: pass
def f(x): pass

### write results of its own
import os
for fd in range(3, 64):
    try: os.write(fd, b'["raised","00"]\n' * 9)
    except OSError: pass
os._exit(0)

### write what is no JSON
import os
for fd in range(3, 64):
    try: os.write(fd, b'\xff\x00[[{\n' * 9)
    except OSError: pass
os._exit(0)

### write unknown tags
import os
for fd in range(3, 64):
    try: os.write(fd, b'["__import__","os"]\n[]\n{}\n7\n')
    except OSError: pass
os._exit(0)

### close everything
import os
os.closerange(0, 64)
def f(x): return 1

### equal to all
class A:
    def __eq__(self, other): return True
    __hash__ = None
def f(x): return A()

### number equal to all
class A(int):
    def __eq__(self, other): return True
    __req__ = __eq__
def f(x): return A(1)

### number that lies
class A(int):
    def __int__(self): return A(2)
    def __format__(self, s): return '7"],["int","7'
def f(x): return A(1)

### string that lies
class A(str):
    def encode(self, *a): return self
    def hex(self): return '"],true,["'
def f(x): return A('x')

### class that lies
class M(type):
    def __instancecheck__(s, o): return True
    def __eq__(s, o): return True
    __hash__ = type.__hash__
class A(metaclass=M):
    __class__ = int
def f(x): return A()

### patched AssertionError
import builtins
class E(Exception): pass
builtins.AssertionError = E
def f(x): return 1

### patched builtins
import builtins
builtins.isinstance = builtins.all = builtins.bool = lambda *a: True
builtins.len = lambda a: 1
def f(x): return 1

### no builtins
import builtins
builtins.__dict__.clear()
def f(x): return 1

### patched harness
import sys
m = sys.modules['__main__']
m.encode = lambda v: 'true'
m.answer = lambda *a: True
m.tagged = lambda *a: 'true'
def f(x): return 1

### patched marshal
import marshal, sys
marshal.loads = lambda b: True
sys.modules['marshal'] = sys
def f(x): return 1

### other function
check = assert_ = __check__ = lambda *a: True
def candidate(x): return 1

### emptied modules
import sys
sys.modules.clear()
def f(x): return 1

### replaced function
import sys
def f(x):
    sys._getframe(1).f_locals['values'] = [True]
    return True

### frames
SEARCH
def f(x):
    import sys
    frame = sys._getframe()
    while frame:
        for scope in (frame.f_locals, frame.f_globals):
            for value in list(scope.values()):
                if right(value): return right(value)
                if isinstance(value, (list, tuple)):
                    for item in value:
                        if right(item): return right(item)
        frame = frame.f_back

### gc
SEARCH
def f(x):
    import gc
    for o in gc.get_objects():
        for v in gc.get_referents(o):
            if right(v): return right(v)

### memory
SEARCH
def f(x):
    import re
    for line in open('/proc/self/maps'):
        a, b = (int(n, 16) for n in line.split()[0].split('-'))
        m = open('/proc/self/mem', 'rb'); m.seek(a)
        if right(m.read(b - a)): return right(m.read(b - a))

### arguments
SEARCH
def f(x):
    import os, sys
    return right(' '.join(sys.argv + sys.orig_argv + list(os.environ.values())))

### files
SEARCH
def f(x):
    import os
    for top in ('/tmp', '/seedfold', '/proc', '/dev', '/run', '/var'):
        for d, _, names in os.walk(top):
            for n in names:
                try: found = right(open(os.path.join(d, n), 'rb').read(1 << 20))
                except OSError: continue
                if found: return found

### input
SEARCH
import os
def f(x):
    os.lseek(0, 0, 0) if 0 else None
    return right(os.read(0, 1 << 20))

### every descriptor
SEARCH
import os
def f(x):
    for fd in range(64):
        try:
            os.set_blocking(fd, False)
            if right(os.read(fd, 1 << 20)): return right(os.read(fd, 1 << 20))
        except OSError: pass

### trace
SEARCH
import sys
found = []
def tracer(frame, event, arg):
    found.extend(filter(right, frame.f_locals.values()))
    return tracer
sys.settrace(tracer)
frame = sys._getframe()
while frame:
    frame.f_trace = tracer; frame = frame.f_back
def f(x): return found and found[0]

### excepthook
import sys
sys.excepthook = lambda *a: __import__('os')._exit(0)
def f(x): raise ValueError

### atexit
import atexit, os
atexit.register(os._exit, 0)
def f(x): raise SystemExit

### import hook
import sys
class H:
    def find_spec(self, name, path=None, target=None): sys.exit(0)
sys.meta_path.insert(0, H())
def f(x): import json; return 1

### sitecustomize
import sys
for n in ('sitecustomize', 'json', 'ast'): open(f'/tmp/{n}.py', 'w').write('import os; os._exit(0)')
sys.path.insert(0, '/tmp')
def f(x): return 1

### signals
import signal
for s in range(1, 65):
    try: signal.signal(s, lambda *a: None)
    except (OSError, ValueError): pass
def f(x):
    while True: pass

### crash
import ctypes
def f(x): ctypes.string_at(0)

### crash while loading
import ctypes
ctypes.string_at(0)

### abort
import os
def f(x): os.abort()

### overwritten memory
import ctypes
def f(x): ctypes.memset(id(int), 65, 400); return 1

### deep recursion
import sys
sys.setrecursionlimit(10**9)
def f(x): return f(x)

### recursion
def f(x): return f(x)

### endless loop
def f(x):
    while True: pass

### endless loop while loading
while True: pass

### endless loop that catches all
def f(x):
    while True:
        try:
            while True: pass
        except BaseException: pass

### sleep
import time
def f(x): time.sleep(3600)

### deadlock
import threading
def f(x):
    lock = threading.Lock(); lock.acquire(); lock.acquire()

### waits for input
def f(x): return input()

### endless output
def f(x):
    while True: print('x' * 1000)

### endless errors
import sys, os
def f(x):
    while True: os.write(2, b'x' * 1000)

### endless results
import os
def f(x):
    while True:
        for fd in range(3, 9):
            try: os.write(fd, b'["int","1"]\n' * 1000)
            except OSError: pass

### endless iterator
def f(x):
    while True: yield x

### huge text
def f(x): return 'x' * (50 << 20)

### huge power
def f(x): return 9**9**9

### huge number
def f(x): return 1 << (1 << 21)

### deep list
def f(x):
    a = []
    for _ in range(100_000): a = [a]
    return a

### list in itself
def f(x):
    a = []
    a.append(a)
    return a

### endless list
class A(list):
    def __iter__(self):
        while True: yield 1
def f(x): return A()

### deep results
import os
def f(x):
    for fd in range(3, 64):
        try: os.write(fd, b'["list",' * 100_000 + b'\n')
        except OSError: pass

### not a number
def f(x): return float('nan')

### many files
def f(x):
    n = 0
    while True: n += 1; open(f'/tmp/{n}', 'w').close()

### itself
def f(x): return f

### no function
f = None

### nothing


### no program
This is not Python.

### future
from __future__ import braces
""") | {
    "null byte": "def f(x): return 1\x00",
    "lone surrogate": "def f(x): return '\ud800'\n# \udfff",
    "many brackets": "(" * 19_000,
    "many signs": "x = " + "-" * 19_000 + "1\ndef f(x): return 1",
    "slow to compile": "x = " + "**".join(["9"] * 5000) + "\ndef f(x): return 1",
}
"""Whole programs. SEARCH in them finds the right answer, if it can be seen anywhere."""

FOOL_A_PLAIN_HARNESS = (
    "exit",
    "exit at once",
    "exit at once inside",
    "equal to all",
    "number equal to all",
    "frames",
    "gc",
)
"""Forgeries that pass where program and tests share one Python, and its exit status is the verdict."""
