//! What can be said without knowing the devices: yes, no, or perhaps.

/// Whether something holds. `Perhaps` never proves anything: it counts as yes where something must not be, and as no where
/// it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// It does not.
    No,
    /// It depends on what the file does not say.
    Perhaps,
    /// It does.
    Yes,
}

impl Truth {
    /// Yes or no.
    pub fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    /// At least `Perhaps` if so.
    pub fn perhaps(holds: bool) -> Self {
        if holds { Self::Perhaps } else { Self::No }
    }
}
