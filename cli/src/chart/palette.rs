//! Colours that people with any colour vision tell apart (Okabe and Ito, 2008), and tints of them for areas.

/// A colour as red, green and blue.
pub(super) type Color = (u8, u8, u8);

/// Text and axes.
pub(super) const INK: Color = (0x22, 0x22, 0x22);
/// Text of less weight.
pub(super) const FAINT: Color = (0x66, 0x66, 0x66);
/// Lines that guide the eye.
pub(super) const GRID: Color = (0xdd, 0xdd, 0xdd);
/// Every second stripe.
pub(super) const STRIPE: Color = (0xf6, 0xf6, 0xf6);
/// The ground.
pub(super) const PAPER: Color = (0xff, 0xff, 0xff);

pub(super) const BLUE: Color = (0x00, 0x72, 0xb2);
pub(super) const SKY: Color = (0x56, 0xb4, 0xe9);
pub(super) const GREEN: Color = (0x00, 0x9e, 0x73);
pub(super) const ORANGE: Color = (0xe6, 0x9f, 0x00);
pub(super) const VERMILION: Color = (0xd5, 0x5e, 0x00);
pub(super) const PURPLE: Color = (0xcc, 0x79, 0xa7);

/// The colour mixed with white; 0 is white, 1 the colour itself.
pub(super) fn tint((r, g, b): Color, strength: f64) -> Color {
    let mix = |channel: u8| (255.0 - (255.0 - f64::from(channel)) * strength).round() as u8;
    (mix(r), mix(g), mix(b))
}

/// The ground of a phase in timelines, by the phase's name; `None` for phases that are not shaded.
pub(super) fn phase(name: &str) -> Option<Color> {
    match name {
        "preparation" => Some(tint(INK, 0.14)),
        "snapshots" => Some(tint(PURPLE, 0.25)),
        "live copy" => Some(tint(SKY, 0.25)),
        "switch" => Some(tint(VERMILION, 0.42)),
        "push" => Some(tint(ORANGE, 0.28)),
        "gather" => Some(tint(GREEN, 0.22)),
        "release" => Some(tint(INK, 0.08)),
        "rollback" => Some(tint(PURPLE, 0.5)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livemig_core::machine::Phase;

    #[test]
    fn every_working_phase_is_shaded() {
        use Phase::{Gather, LiveCopy, Preparation, Push, Release, Rollback, Snapshots, Switch};
        for p in [Preparation, Snapshots, LiveCopy, Switch, Push, Gather, Release, Rollback] {
            assert!(phase(p.name()).is_some(), "{}", p.name());
        }
        assert_eq!((phase(Phase::Waiting.name()), phase(Phase::Ended.name())), (None, None));
    }

    #[test]
    fn tints_go_from_white_to_the_colour() {
        assert_eq!(tint(BLUE, 0.0), PAPER);
        assert_eq!(tint(BLUE, 1.0), BLUE);
    }
}
