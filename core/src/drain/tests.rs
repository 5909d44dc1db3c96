//! Drains by hand, and drains of every kind against a search that looks at everything each time.

mod by_hand;
mod oracle;
mod random;
