//! Counts the bytes that one thread holds: the system's allocator with a meter on it.

#![expect(unsafe_code, reason = "the trait of a global allocator is unsafe to implement")]

use std::alloc::GlobalAlloc;
use std::alloc::Layout;
use std::alloc::System;
use std::cell::Cell;

/// To be made the `#[global_allocator]` of a test.
pub struct Metered;

/// What a piece of work did to its thread's memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// The most that was held at once, beyond what was held before.
    pub peak: i64,
    /// What is still held.
    pub kept: i64,
}

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

/// Does the work and says what it took. What other threads hold is not counted.
pub fn measure(work: impl FnOnce()) -> Usage {
    let before = HELD.get();
    PEAK.set(before);
    work();
    Usage { peak: PEAK.get() - before, kept: HELD.get() - before }
}

fn changed(by: i64) {
    // A thread that is ending has no meter any more, and nobody to read it.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + by);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Metered {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        changed(layout.size() as i64);
        // SAFETY: as of this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        changed(-(layout.size() as i64));
        // SAFETY: as of this function.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        changed(size as i64 - layout.size() as i64);
        // SAFETY: as of this function.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
