//! An SVG picture in pixels with one decimal: a thin layer over the SVG backend of plotters, which counts in whole units.

use super::palette::{Color, INK, PAPER};
use anyhow::{Result, anyhow};
use plotters::prelude::{DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, FontDesc, FontFamily, FontStyle, RGBColor, ShapeStyle, TextStyle};

/// Units of the backend per pixel.
const FINE: f64 = 10.0;

/// A point in units of the backend.
type Point = (i32, i32);

/// The backend divides font sizes by this.
const BACKEND_FONT_FACTOR: f64 = 1.24;

/// Present on most systems, or replaced by something of about the same width.
const FONT: &str = "Helvetica, Arial, sans-serif";

/// Height of capital letters as a share of the font size.
const CAPITALS: f64 = 0.72;

/// Where the backend puts the baseline below the given position, as a share of the font size.
const BASELINE: f64 = 0.76;

/// Which point of a text is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Font {
    pub(super) size: f64,
    pub(super) color: Color,
    pub(super) bold: bool,
}

impl Font {
    /// Dark and upright.
    pub(super) const fn new(size: f64) -> Font {
        Font { size, color: INK, bold: false }
    }

    /// In this colour.
    pub(super) const fn colored(self, color: Color) -> Font {
        Font { color, ..self }
    }

    /// Bold.
    pub(super) const fn bold(self) -> Font {
        Font { bold: true, ..self }
    }

    /// An upper estimate of the width of a text, for the widest of the usual fonts.
    pub(super) fn width(&self, text: &str) -> f64 {
        let em: f64 = text.chars().map(char_width).sum();
        em * self.size * if self.bold { 1.1 } else { 1.0 }
    }

    /// The text, cut so that it is at most `width` wide.
    pub(super) fn cut(&self, text: &str, width: f64) -> String {
        if self.width(text) <= width {
            return text.to_owned();
        }
        let mut short = text.to_owned();
        while !short.is_empty() && self.width(&short) + self.width("…") > width {
            short.pop();
        }
        short.trim_end().to_owned() + "…"
    }

    /// The text on at most `most` lines of this width, broken between words; what does not fit is cut.
    pub(super) fn wrap(&self, text: &str, width: f64, most: usize) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            let full = lines.len() >= most;
            match lines.last_mut() {
                Some(line) if full || self.width(&format!("{line} {word}")) <= width => *line += &format!(" {word}"),
                _ => lines.push(word.to_owned()),
            }
        }
        lines.iter().map(|line| self.cut(line, width)).collect()
    }
}

fn char_width(c: char) -> f64 {
    match c {
        '·' | 'i' | 'j' | 'l' | '\'' | '|' | '.' | ',' | ':' | ';' | '!' | ' ' => 0.34,
        'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '-' | '/' => 0.42,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '…' => 0.98,
        c if c.is_ascii_uppercase() => 0.72,
        'µ' => 0.64,
        c if c.is_ascii() => 0.64,
        // Wide scripts take a square.
        _ => 1.0,
    }
}

/// A picture in the making.
pub(super) struct Canvas {
    size: (f64, f64),
    shapes: Vec<Shape>,
}

enum Shape {
    Rect { from: Point, to: Point, color: Color },
    Path { points: Vec<Point>, stroke: ShapeStyle },
    Circle { center: Point, radius: u32, stroke: ShapeStyle, fill: bool },
    Text { text: String, at: Point, style: TextStyle<'static> },
}

impl Canvas {
    /// A white picture.
    pub(super) fn new(width: f64, height: f64) -> Canvas {
        let mut canvas = Canvas { size: (width, height), shapes: Vec::new() };
        canvas.rect((0.0, 0.0), (width, height), PAPER);
        canvas
    }

    /// A filled rectangle between two corners.
    pub(super) fn rect(&mut self, from: (f64, f64), to: (f64, f64), color: Color) {
        self.shapes.push(Shape::Rect { from: fine(from), to: fine(to), color });
    }

    /// A line through points.
    pub(super) fn path(&mut self, points: &[(f64, f64)], color: Color, width: f64) {
        self.shapes.push(Shape::Path { points: points.iter().map(|p| fine(*p)).collect(), stroke: stroke(color, width) });
    }

    /// A disc, or a ring on paper.
    pub(super) fn dot(&mut self, center: (f64, f64), radius: f64, color: Color, filled: bool) {
        let circle = |color, fill| Shape::Circle {
            center: fine(center),
            radius: (radius * FINE).round() as u32,
            stroke: stroke(color, 1.6),
            fill,
        };
        if !filled {
            self.shapes.push(circle(PAPER, true));
        }
        self.shapes.push(circle(color, filled));
    }

    /// A text whose capitals are centred on the given height.
    pub(super) fn text(&mut self, (x, y): (f64, f64), text: &str, font: Font, anchor: Anchor) {
        let at = fine((x, y + (CAPITALS / 2.0 - BASELINE) * font.size));
        self.shapes.push(Shape::Text { text: text.to_owned(), at, style: text_style(font, anchor) });
    }

    /// The picture as an SVG document.
    ///
    /// # Errors
    /// When the backend refuses a shape.
    pub(super) fn svg(self) -> Result<String> {
        let units = |pixels: f64| (pixels * FINE).round() as u32;
        let (width, height) = (units(self.size.0), units(self.size.1));
        let mut document = String::new();
        {
            let mut backend = SVGBackend::with_string(&mut document, (width, height));
            for shape in &self.shapes {
                shape.draw(&mut backend)?;
            }
            backend.present().map_err(|e| anyhow!("cannot draw: {e}"))?;
        }
        let size = |scale: f64| format!("width=\"{}\" height=\"{}\"", f64::from(width) / scale, f64::from(height) / scale);
        Ok(document.replacen(&size(1.0), &size(FINE), 1))
    }
}

impl Shape {
    fn draw(&self, backend: &mut SVGBackend<'_>) -> Result<()> {
        match self {
            Shape::Rect { from, to, color } => backend.draw_rect(*from, *to, &stroke(*color, 0.0), true),
            Shape::Path { points, stroke } => backend.draw_path(points.iter().copied(), stroke),
            Shape::Circle { center, radius, stroke, fill } => backend.draw_circle(*center, *radius, stroke, *fill),
            Shape::Text { text, at, style } => backend.draw_text(text, style, *at),
        }
        .map_err(|e| anyhow!("cannot draw: {e}"))
    }
}

fn fine((x, y): (f64, f64)) -> Point {
    ((x * FINE).round() as i32, (y * FINE).round() as i32)
}

fn stroke((r, g, b): Color, width: f64) -> ShapeStyle {
    ShapeStyle { color: RGBColor(r, g, b).into(), filled: true, stroke_width: (width * FINE).round() as u32 }
}

fn text_style(font: Font, anchor: Anchor) -> TextStyle<'static> {
    let horizontal = match anchor {
        Anchor::Start => HPos::Left,
        Anchor::Middle => HPos::Center,
        Anchor::End => HPos::Right,
    };
    let (r, g, b) = font.color;
    let style = if font.bold { FontStyle::Bold } else { FontStyle::Normal };
    let desc = FontDesc::new(FontFamily::Name(FONT), font.size * FINE * BACKEND_FONT_FACTOR, style);
    let color = RGBColor(r, g, b).to_backend_color();
    TextStyle { font: desc, color, pos: Pos::new(horizontal, VPos::Top) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_in_pixels_and_hostile_names_are_harmless() {
        let mut canvas = Canvas::new(300.0, 200.0);
        canvas.text((10.0, 10.0), "<script>&\"", Font::new(12.0), Anchor::Start);
        let svg = canvas.svg().unwrap();
        assert!(svg.starts_with("<svg width=\"300\" height=\"200\" viewBox=\"0 0 3000 2000\""), "{svg}");
        assert!(svg.contains("&lt;script&gt;&amp;&quot;"), "{svg}");
        assert!(svg.trim_end().ends_with("</svg>"), "{svg}");
    }

    #[test]
    fn texts_are_broken_between_words_and_lose_only_what_does_not_fit() {
        let font = Font::new(11.0);
        assert_eq!(font.wrap("post-copy, busy", 70.0, 2), ["post-copy,", "busy"]);
        assert_eq!(font.wrap("busy", 70.0, 2), ["busy"]);
        let lines = font.wrap("scatter-gather with four streams", 90.0, 2);
        assert_eq!((lines.len(), lines[0].as_str()), (2, "scatter-gather"));
        assert!(lines[1].ends_with('…') && font.width(&lines[1]) <= 90.0, "{lines:?}");
        assert!(font.wrap("", 70.0, 2).is_empty());
    }

    #[test]
    fn texts_are_cut_to_their_place() {
        let font = Font::new(10.0);
        assert_eq!(font.cut("short", 100.0), "short");
        let cut = font.cut("a name that is much too long", 60.0);
        assert!(cut.ends_with('…') && font.width(&cut) <= 60.0, "{cut}");
    }
}
