//! The plugin `loopback` in its usual form, served before the C library begins: that beginning is two thirds of what
//! `loopback` costs, for every pod at least twice (`docs/decisions/0033-loopback-before-the-c-library.md`).
//!
//! Whatever is not usual, or fails, is left to the ordinary plugin, as if nothing had been tried. Nothing in here may
//! call the C library, not even `memcpy`: it would jump to address 0. So this crate is always optimised, depends on
//! nothing, compares and copies bytes by itself, and keeps no more than a few words on the stack.
#![allow(unsafe_code, reason = "nothing stands between this and the kernel")]
#![no_std]
#![no_builtins]

#[cfg(target_arch = "x86_64")]
mod answer;
mod bytes;
mod call;
mod conf;
#[cfg(target_arch = "x86_64")]
mod entry;
mod stdin;
#[cfg(target_arch = "x86_64")]
mod system;
#[cfg(target_arch = "x86_64")]
mod work;

pub use call::{Call, Verb};
pub use conf::Conf;
pub use stdin::taken;

// Where nothing is served early, the program's entry is the C library's.
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(".globl hostgw_start", "hostgw_start:", "b _start");
