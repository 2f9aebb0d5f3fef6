//! Where the program begins.

use core::arch::naked_asm;

use crate::call::Call;
use crate::conf::Conf;
use crate::{stdin, system, work};

/// The program's entry. Whatever is not served here goes the way that it would have gone: to the C library's entry, with
/// the stack as the kernel has made it, and in `rdx` what a dynamic loader has left there.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn hostgw_start() -> ! {
    naked_asm!(
        "xor ebp, ebp",
        "mov r12, rdx",
        "mov rdi, rsp",
        "call {begin}",
        "mov rdx, r12",
        "jmp _start",
        begin = sym begin,
    )
}

/// Serves a usual call of `loopback`, and then does not return. `stack` is what the kernel gives to a new process: the
/// number of arguments, the arguments, a null, the environment, a null.
extern "C" fn begin(stack: *const usize) {
    // SAFETY: the kernel made the stack so, and nothing was changed since.
    let served = unsafe {
        let arguments = stack.add(1).cast::<*const u8>();
        if *stack == 0 {
            return;
        }
        let environment = Texts { next: arguments.add(*stack + 1) };
        Call::read(text(*arguments), environment)
            .and_then(|call| work::serve(call, Conf::read(stdin::take()?, call.verb)?))
    };
    if served.is_some() {
        system::exit(0);
    }
}

/// Texts by a list of their places that a null ends.
struct Texts {
    next: *const *const u8,
}

impl Iterator for Texts {
    type Item = &'static [u8];

    fn next(&mut self) -> Option<&'static [u8]> {
        // SAFETY: a null ends the list, beyond which nobody goes.
        unsafe {
            let found = *self.next;
            if found.is_null() {
                return None;
            }
            self.next = self.next.add(1);
            Some(text(found))
        }
    }
}

/// A text up to its NUL, and that.
///
/// # Safety
/// There must be one, and the text must stay.
unsafe fn text(at: *const u8) -> &'static [u8] {
    let mut length = 1;
    // SAFETY: the caller's.
    unsafe {
        while *at.add(length - 1) != 0 {
            length += 1;
        }
        core::slice::from_raw_parts(at, length)
    }
}
