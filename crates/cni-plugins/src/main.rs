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
    // SAFETY: nothing is left to be written: answers and the log are not buffered, and `println!` ends with a line. Without
    // this the C library would look for what it could still do, in pages that nobody has touched yet.
    unsafe { libc::_exit(i32::from(cni_plugins::run())) }
}

/// What static glibc asks for before anything else, and uses only to open shared libraries by `$ORIGIN`: none are opened
/// here, and to ask the kernel is to have it make entries below `/proc` for a process that ends in a millisecond (40 µs).
/// It gives "not known" (-1), as glibc's own does where `/proc` is not mounted. A C library that does not ask does not
/// call this.
#[cfg(all(not(test), target_env = "gnu", target_feature = "crt-static"))]
#[unsafe(no_mangle)]
extern "C" fn _dl_get_origin() -> *const libc::c_char {
    std::ptr::without_provenance(usize::MAX)
}
