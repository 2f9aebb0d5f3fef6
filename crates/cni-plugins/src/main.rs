//! `hostgw-cni`: every CNI plugin of hostgw in one program, picked by the name that it is called by.
#![cfg_attr(not(test), no_main)]
#![allow(unsafe_code, reason = "C's entry point, and two calls before anything else runs")]

/// C's entry point. The standard library's own reads `/proc/self/maps` and prepares for overflows of threads' stacks
/// first, which shows in a program that lives for two milliseconds. Arguments reach `std::env` all the same: the C
/// library hands them to its initialiser.
// SAFETY: the program's only `main`, with the signature that C gives it.
#[cfg(not(test))]
#[unsafe(no_mangle)]
extern "C" fn main(_count: libc::c_int, _arguments: *const *const libc::c_char) -> libc::c_int {
    for descriptor in 0..=2 {
        // SAFETY: no other thread is there, and the path is a string of C. A descriptor that is closed would be given
        // to the next socket, and the answer written there.
        unsafe {
            if libc::fcntl(descriptor, libc::F_GETFD) == -1 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
    // SAFETY: no handler is installed. A runtime that reads no further must not end this before it is undone.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    i32::from(cni_plugins::run())
}
