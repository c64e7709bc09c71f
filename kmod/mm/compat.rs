// SPDX-License-Identifier: GPL-2.0-only
//! What differs between the series of the kernel. Nothing else in the module asks for the
//! version.
//!
//! `Kbuild` computes from the kernel's own version what holds for it, and sets a `cfg` for
//! each difference that is named for the first series without it: `kernel_before_7_3`.

use kernel::bindings;
use kernel::fs::File;
use kernel::miscdevice::MiscDevice;
#[cfg(kernel_before_7_3)]
use kernel::miscdevice::MiscDeviceOptions;
use kernel::mm::virt::vm_flags_t;
use kernel::prelude::*;

/// This module, for tables of callbacks: what uses them keeps it loaded.
#[cfg(not(kernel_before_7_3))]
pub(super) const OWNER: *mut bindings::module =
    kernel::module::this_module::<crate::LocalModule>().as_ptr();

/// This module, for tables of callbacks: what uses them keeps it loaded.
#[cfg(kernel_before_7_3)]
pub(super) const OWNER: *mut bindings::module = crate::THIS_MODULE.as_ptr();

/// Of an area that is shared, whatever its descriptor may do. The constant of this name in
/// `bindings` is that of `VM_MAYEXEC` before 7.3; the number of the bit is right in all series.
pub(super) const VM_MAYSHARE: vm_flags_t = 1 << bindings::VMA_MAYSHARE_BIT;

/// Keeps the module loaded while a file of a device is open. To be called where the file is
/// opened, by [`MiscDevice::open`].
#[cfg(not(kernel_before_7_3))]
#[allow(clippy::extra_unused_type_parameters, reason = "the other one uses it")]
pub(crate) fn keep_loaded<T: MiscDevice>(_file: &File) -> Result {
    // The table of a `MiscDevice` names its owner.
    Ok(())
}

/// Keeps the module loaded while a file of a device is open. To be called where the file is
/// opened, by [`MiscDevice::open`].
///
/// Before 7.3 the table of a `MiscDevice` names no owner, and the module could be unloaded
/// under its open files. The file gets a table that does.
#[cfg(kernel_before_7_3)]
pub(crate) fn keep_loaded<T: MiscDevice>(file: &File) -> Result {
    // SAFETY: The module is there: its unloading unregisters the device, and that waits for
    // whoever opens it.
    if !unsafe { bindings::try_module_get(OWNER) } {
        return Err(ENODEV);
    }
    // SAFETY: The file is being opened, so nobody else looks at its operations yet. The
    // kernel lets go of the module through the new table, also when opening fails.
    unsafe { (*file.as_ptr()).f_op = &Owned::<T>::TABLE };
    Ok(())
}

/// The operations of a device's files.
#[cfg(kernel_before_7_3)]
struct Owned<T>(core::marker::PhantomData<T>);

#[cfg(kernel_before_7_3)]
impl<T: MiscDevice> Owned<T> {
    const TABLE: bindings::file_operations = {
        let raw = MiscDeviceOptions { name: c"" }.into_raw::<T>();
        // SAFETY: `into_raw` makes it point to a constant.
        let mut table = unsafe { *raw.fops };
        table.owner = OWNER;
        table
    };
}
