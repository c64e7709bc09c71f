// SPDX-License-Identifier: GPL-2.0-only
//! The logic of the ckpt module that needs no kernel.
#![no_std]
