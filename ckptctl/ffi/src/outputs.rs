// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Outputs that wait until they are safe.

use std::ffi::c_int;
use std::ffi::c_void;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::ptr::without_provenance_mut;
use std::time::Duration;

use ckptctl::Outputs;
use ckptctl::outputs::Refused;
use ckptctl::outputs::Released;
use nix::libc;

use crate::argument;
use crate::call::status;
use crate::call::value;
use crate::error::Failure;
use crate::handle::Handle;
use crate::header::ckpt_outputs_t;
use crate::header::ckpt_t;
use crate::registry::Found;
use crate::registry::Registry;

/// What a program holds: an address that is only kept.
struct Output(*mut c_void);

// SAFETY: Nobody here looks at what it points to; the header says that any thread may get it.
unsafe impl Send for Output {}

static OPEN: Registry<Outputs<Output>> = Registry::new();

fn not_open(outputs: *mut ckpt_outputs_t) -> Failure {
    Failure::invalid(match outputs.is_null() {
        true => "the outputs are NULL: open some with ckpt_output_open()".to_owned(),
        false => format!(
            "{outputs:p} are not open outputs: they were closed, or did not come from ckpt_output_open()"
        ),
    })
}

fn find(outputs: *mut ckpt_outputs_t) -> Result<Found<'static, Outputs<Output>>, Failure> {
    let found = OPEN.find(outputs.addr()).ok_or_else(|| not_open(outputs))?;
    // What another thread of the parent did at the fork is never finished in the child.
    found.check_process()?;
    Ok(found)
}

/// # Safety
///
/// As the header says: `outputs` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_output_open(
    ctx: *mut ckpt_t,
    limit: usize,
    outputs: *mut *mut ckpt_outputs_t,
) -> c_int {
    status(|| {
        let place = argument::place(outputs, "outputs")?;
        // SAFETY: As this function's contract.
        unsafe { place.write(null_mut()) };
        let context = Handle::from_pointer(ctx).context()?;
        let made = Outputs::new(&context, limit)?;
        let number = Handle::new().pointer().addr();
        OPEN.insert(number, made);
        // SAFETY: As this function's contract.
        unsafe { place.write(without_provenance_mut(number)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_output_hold(
    outputs: *mut ckpt_outputs_t,
    epoch: u64,
    output: *mut c_void,
) -> c_int {
    status(|| {
        let held = find(outputs)?.hold(epoch, Output(output));
        held.map_err(|Refused { error, .. }| error.into())
    })
}

/// # Safety
///
/// As the header says: `output` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_output_next(
    outputs: *mut ckpt_outputs_t,
    timeout_ms: c_int,
    output: *mut *mut c_void,
) -> c_int {
    status(|| {
        let place = argument::place(output, "output")?;
        // SAFETY: As this function's contract.
        unsafe { place.write(null_mut()) };
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        let (output, result) = match find(outputs)?.released(timeout)? {
            Some(Released::Safe(Output(output))) => (output, Ok(())),
            Some(Released::Lost(Output(output))) => (
                output,
                Err(Failure {
                    errno: libc::ECANCELED,
                    text: "what this output depends on was lost before it was durable: free it and do not say it".into(),
                }),
            ),
            None => {
                return Err(Failure {
                    errno: libc::ETIMEDOUT,
                    text: "no output is released yet: commit what they depend on, or wait longer"
                        .into(),
                });
            }
        };
        // SAFETY: As this function's contract.
        unsafe { place.write(output) };
        result
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_output_fd(outputs: *mut ckpt_outputs_t) -> c_int {
    let fd = value(None, || Ok(Some(find(outputs)?.as_fd().as_raw_fd())));
    match fd {
        Some(fd) => fd,
        None => crate::error::ckpt_error(),
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_output_close(outputs: *mut ckpt_outputs_t) -> c_int {
    status(|| {
        // Who waits there must leave before they can be removed.
        find(outputs)?.end();
        let removed = OPEN.remove(outputs.addr());
        removed.map(drop).ok_or_else(|| not_open(outputs))
    })
}
