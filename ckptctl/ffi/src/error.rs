// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Error numbers, and the text of each thread's last error.

use std::cell::RefCell;
use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_int;

use nix::libc;

use crate::header::ckpt_t;

/// What a function could not do.
#[derive(Debug)]
pub struct Failure {
    /// A number of `errno.h`, positive.
    pub errno: c_int,
    /// What happened and what to do about it.
    pub text: String,
}

impl Failure {
    /// An argument cannot be.
    pub fn invalid(text: impl Into<String>) -> Failure {
        Failure {
            errno: libc::EINVAL,
            text: text.into(),
        }
    }
}

impl From<ckptctl::Error> for Failure {
    fn from(error: ckptctl::Error) -> Failure {
        Failure {
            errno: error.errno(),
            text: error.to_string(),
        }
    }
}

struct Last {
    errno: c_int,
    text: CString,
}

thread_local! {
    static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
}

/// Keeps a failure for the calling thread.
pub fn keep(failure: Failure) {
    let mut text = failure.text.into_bytes();
    text.retain(|&byte| byte != 0);
    let last = Last {
        errno: failure.errno,
        text: CString::new(text).unwrap_or_default(),
    };
    // A thread that is ending has no place for it any more.
    let _ = LAST.try_with(|place| place.replace(Some(last)));
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_error() -> c_int {
    let errno = LAST.try_with(|last| last.borrow().as_ref().map(|last| last.errno));
    -errno.ok().flatten().unwrap_or(0)
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_errmsg(_ctx: *mut ckpt_t) -> *const c_char {
    // The text stays where it is until `keep` replaces it.
    let text = LAST.try_with(|last| last.borrow().as_ref().map(|last| last.text.as_ptr()));
    text.ok().flatten().unwrap_or(c"no error".as_ptr())
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_strerror(error: c_int) -> *const c_char {
    meaning(error.wrapping_abs()).as_ptr()
}

/// What a number means when a function of this library returns it.
fn meaning(errno: c_int) -> &'static CStr {
    match errno {
        0 => c"no error",
        libc::EPERM => c"EPERM: the context belongs to the parent process",
        libc::ENOENT => c"ENOENT: there is no such epoch, region or folder",
        libc::EIO => c"EIO: reading or writing failed",
        libc::E2BIG => c"E2BIG: a structure has fields that this version does not know",
        libc::ENOEXEC => {
            c"ENOEXEC: the chain was written by another program, or at other addresses"
        }
        libc::EBADF => c"EBADF: bad file descriptor",
        libc::ENOMEM => c"ENOMEM: no memory, or a limit is too low",
        libc::EACCES => c"EACCES: permission denied",
        libc::EFAULT => c"EFAULT: a bug in libckpt",
        libc::EBUSY => c"EBUSY: another program writes to the chain",
        libc::EEXIST => c"EEXIST: there is a region of another type, or elsewhere",
        libc::ENODEV => c"ENODEV: there is no /dev/ckpt",
        libc::ENOTDIR => c"ENOTDIR: not a folder",
        libc::EINVAL => c"EINVAL: invalid argument",
        libc::EMFILE => c"EMFILE: too many open files",
        libc::EAGAIN => c"EAGAIN: too many outputs are held",
        libc::EFBIG => c"EFBIG: file too large",
        libc::ENOSPC => c"ENOSPC: no space left",
        libc::EROFS => c"EROFS: read-only file system",
        libc::EDEADLK => c"EDEADLK: called from a hook",
        libc::ENOTEMPTY => c"ENOTEMPTY: the folder has other things in it",
        libc::EBADMSG => c"EBADMSG: the chain is damaged",
        libc::EADDRINUSE => c"EADDRINUSE: the addresses are taken, or in the arena already",
        libc::EPROTONOSUPPORT => {
            c"EPROTONOSUPPORT: the chain is of a version that this one does not know"
        }
        libc::EDQUOT => c"EDQUOT: disk quota exceeded",
        libc::EOPNOTSUPP => c"EOPNOTSUPP: memory of this kind cannot be adopted",
        libc::ETIMEDOUT => c"ETIMEDOUT: the epoch is not durable yet, or no output is released",
        libc::ESHUTDOWN => c"ESHUTDOWN: the context was closed",
        libc::ECANCELED => c"ECANCELED: a hook refused, or an output or epoch was taken back",
        libc::ENOTRECOVERABLE => c"ENOTRECOVERABLE: a rollback broke off, the memory is undefined",
        _ => c"an error of the system, see errno.h",
    }
}
