// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The way of every call from C: in by [`value`] or [`status`], out without a panic.

use std::any::Any;
use std::ffi::c_int;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use nix::libc;

use crate::error::Failure;
use crate::error::keep;

/// Runs the body of a function that returns a number: 0, or a negative error number.
pub fn status(body: impl FnOnce() -> Result<(), Failure>) -> c_int {
    number(|| body().map(|()| 0))
}

/// Runs the body of a function that returns a number, which is 0 or above, or a negative error
/// number.
pub fn number(body: impl FnOnce() -> Result<c_int, Failure>) -> c_int {
    run(body).unwrap_or_else(|errno| -errno)
}

/// Runs the body of a function that returns something else, `neutral` when it fails.
pub fn value<T>(neutral: T, body: impl FnOnce() -> Result<T, Failure>) -> T {
    run(body).unwrap_or(neutral)
}

fn run<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, c_int> {
    // What a panic leaves behind is looked at by nobody who relies on it: the locks of a
    // context are made to be used again, arguments and results are values.
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(failure)) => failure,
        Err(panic) => bug(&*panic),
    };
    let errno = failure.errno;
    keep(failure);
    Err(errno)
}

fn bug(panic: &(dyn Any + Send)) -> Failure {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "no text",
    };
    Failure {
        errno: libc::EFAULT,
        text: format!(
            "a bug in libckpt: {text}; the chain is whole up to the last commit, restart the program from it, and report this"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_text() {
        let number = 3;
        assert_eq!(status(|| panic!("number {number}")), -libc::EFAULT);
        assert_eq!(value(7, || panic!("static text")), 7);
        // SAFETY: The text of the last error is a C string.
        let text = unsafe { CStr::from_ptr(crate::error::ckpt_errmsg(std::ptr::null_mut())) };
        assert!(text.to_string_lossy().contains("static text"), "{text:?}");
        assert_eq!(crate::error::ckpt_error(), -libc::EFAULT);
    }
}
