// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Entering and leaving the state, for programs with threads.

use std::cell::RefCell;
use std::ffi::c_int;

use ckptctl::SafePoint;

use crate::call::status;
use crate::error::Failure;
use crate::handle::Handle;
use crate::header::ckpt_t;

thread_local! {
    /// The safe points of this thread, by handle: no handle is given twice. So threads that
    /// enter and leave share nothing, not even the list of contexts that are open.
    static POINTS: RefCell<Vec<(Handle, SafePoint)>> = const { RefCell::new(Vec::new()) };
}

fn safe_point(ctx: *mut ckpt_t) -> Result<SafePoint, Failure> {
    let handle = Handle::from_pointer(ctx);
    let known = |points: &RefCell<Vec<(Handle, SafePoint)>>| {
        let points = points.borrow();
        let found = points.iter().find(|(other, _)| *other == handle);
        found.map(|(_, point)| point.clone())
    };
    if let Ok(Some(point)) = POINTS.try_with(known) {
        return Ok(point);
    }
    let point = handle.context()?.safe_point()?;
    // A thread that is ending just looks it up again.
    let _ = POINTS.try_with(|points| {
        let mut points = points.borrow_mut();
        points.retain(|(_, point)| !point.is_closed());
        points.push((handle, point.clone()));
    });
    Ok(point)
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_enter(ctx: *mut ckpt_t) -> c_int {
    status(|| Ok(safe_point(ctx)?.enter()?))
}

#[unsafe(no_mangle)]
pub extern "C" fn ckpt_leave(ctx: *mut ckpt_t) -> c_int {
    status(|| Ok(safe_point(ctx)?.leave()?))
}
