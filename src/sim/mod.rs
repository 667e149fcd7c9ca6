//! The machines in virtual time, over links that are slow and lose things.
