//! Kernels and profiles of containers that refuse a system call.

use super::{Setup, skip_without};

/// Has a system call fail in what follows, as a seccomp profile does: its number on x86-64 and on AArch64, the first
/// argument that it fails with, or -1 for any, and the error.
const PROFILE: &str = r#"
import ctypes, os, platform, struct, sys
call, first, errno = (int(word) for word in sys.argv[1 if platform.machine() == "x86_64" else 2].split(","))
load, jump, give = 0x20, 0x15, 0x06
lines = [(load, 0, 0, 0), (jump, 0, 3, call), (load, 0, 0, 16), (jump, 0, 1, first),
         (give, 0, 0, 0x50000 | errno), (give, 0, 0, 0x7fff0000)]
if first == -1:
    lines = [(load, 0, 0, 0), (jump, 0, 1, call), (give, 0, 0, 0x50000 | errno), (give, 0, 0, 0x7fff0000)]
code = b"".join(struct.pack("HBBI", *line) for line in lines)
buffer = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(lines), ctypes.addressof(buffer)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[3], sys.argv[3:])
"#;

/// The server where a call is refused; `None` where that can't be arranged.
pub(crate) fn restricted(setup: Setup, x86_64: &str, aarch64: &str) -> Option<Setup> {
    if skip_without("python3") {
        return None;
    }
    Some(setup.under(&["python3", "-c", PROFILE, x86_64, aarch64]))
}
