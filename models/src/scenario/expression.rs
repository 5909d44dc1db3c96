//! Patterns in text: `"vm{i}"`, `"{4000 + 500*(i%7)} MB"`, `"{memory_bytes} B"`.
//!
//! Between braces stands an integer expression over the member's number `i` and the columns of its table, or the name of a
//! column alone, which gives the column's text. `{{` and `}}` are braces. Arithmetic is on signed 64-bit integers, and
//! overflow and division by zero are errors; `/` and `%` round towards zero.

/// Text with expressions in it, compiled once and evaluated for each member of a fleet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Literal(Box<str>),
    Column(Box<str>),
    Integer(Vec<Op>),
}

/// A step of an expression in postfix form.
#[derive(Clone, Debug, PartialEq)]
enum Op {
    Push(i64),
    Index,
    Column(Box<str>),
    Negate,
    Binary(u8),
}

/// What expressions refer to.
pub(crate) trait Variables {
    /// The member's number.
    fn index(&self) -> Result<i64, String>;
    /// The text of a column.
    fn column(&self, name: &str) -> Result<&str, String>;
}

/// Most values that an expression may have pending; bounds nesting.
const STACK: usize = 32;

impl Template {
    /// Whether `text` needs to be compiled.
    pub(crate) fn is_needed(text: &str) -> bool {
        text.contains(['{', '}'])
    }

    /// Compiles `text`.
    ///
    /// # Errors
    /// What is wrong in it.
    pub(crate) fn compile(text: &str) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err(format!("`}}` without `{{` in \"{text}\" (write `}}}}` for a brace)"));
            }
            let end = rest.find('}').ok_or_else(|| format!("`{{` without `}}` in \"{text}\" (write `{{{{` for a brace)"))?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
            }
            pieces.push(Parser::piece(&rest[..end])?);
            rest = &rest[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.into()));
        }
        Ok(Template { pieces })
    }

    /// Appends the text for one member to `out`.
    ///
    /// # Errors
    /// When a variable does not exist or the arithmetic fails.
    pub(crate) fn expand(&self, variables: &impl Variables, out: &mut String) -> Result<(), String> {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Column(name) => out.push_str(variables.column(name)?),
                Piece::Integer(ops) => append(out, evaluate(ops, variables)?),
            }
        }
        Ok(())
    }
}

/// Appends a number in decimal: fleets make millions of them, which `write!` makes slowly.
fn append(out: &mut String, number: i64) {
    let mut digits = [0; 20];
    let (mut start, mut left) = (digits.len(), number.unsigned_abs());
    loop {
        start -= 1;
        digits[start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        out.push('-');
    }
    out.push_str(std::str::from_utf8(&digits[start..]).expect("digits are text"));
}

fn evaluate(ops: &[Op], variables: &impl Variables) -> Result<i64, String> {
    let mut stack = [0_i64; STACK];
    let mut top = 0;
    for op in ops {
        let value = match op {
            Op::Push(n) => *n,
            Op::Index => variables.index()?,
            Op::Column(name) => {
                let text = variables.column(name)?;
                text.trim().parse().map_err(|_| format!("column `{name}` holds `{text}`, which is not a whole number"))?
            }
            Op::Negate => {
                top -= 1;
                stack[top].checked_neg().ok_or("the expression exceeds 64 bits")?
            }
            Op::Binary(operator) => {
                top -= 2;
                binary(*operator, stack[top], stack[top + 1])?
            }
        };
        // The parser admits no expression that needs more than the stack.
        stack[top] = value;
        top += 1;
    }
    Ok(stack[0])
}

fn binary(operator: u8, a: i64, b: i64) -> Result<i64, String> {
    let result = match operator {
        b'+' => a.checked_add(b),
        b'-' => a.checked_sub(b),
        b'*' => a.checked_mul(b),
        _ if b == 0 => return Err("the expression divides by zero".to_owned()),
        b'/' => a.checked_div(b),
        _ => a.checked_rem(b),
    };
    result.ok_or_else(|| "the expression exceeds 64 bits".to_owned())
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    ops: Vec<Op>,
    pending: usize,
}

impl<'a> Parser<'a> {
    fn piece(text: &'a str) -> Result<Piece, String> {
        let name = text.trim();
        let mut parser = Parser { text, at: 0, ops: Vec::new(), pending: 0 };
        parser.sum(0)?;
        if parser.peek().is_some() {
            return Err(parser.unexpected());
        }
        match parser.ops.as_slice() {
            [Op::Column(_)] => Ok(Piece::Column(name.into())),
            _ => Ok(Piece::Integer(parser.ops)),
        }
    }

    fn sum(&mut self, depth: usize) -> Result<(), String> {
        self.product(depth)?;
        while let Some(operator @ (b'+' | b'-')) = self.peek() {
            self.at += 1;
            self.product(depth)?;
            self.operator(operator);
        }
        Ok(())
    }

    fn product(&mut self, depth: usize) -> Result<(), String> {
        self.factor(depth)?;
        while let Some(operator @ (b'*' | b'/' | b'%')) = self.peek() {
            self.at += 1;
            self.factor(depth)?;
            self.operator(operator);
        }
        Ok(())
    }

    fn factor(&mut self, depth: usize) -> Result<(), String> {
        if depth == STACK {
            return Err(format!("`{{{}}}` is nested too deeply", self.text));
        }
        match self.peek() {
            Some(b'-') => {
                self.at += 1;
                self.factor(depth + 1)?;
                self.ops.push(Op::Negate);
                Ok(())
            }
            Some(b'(') => {
                self.at += 1;
                self.sum(depth + 1)?;
                if self.peek() == Some(b')') {
                    self.at += 1;
                    Ok(())
                } else {
                    Err(self.unexpected())
                }
            }
            Some(b'0'..=b'9') => {
                let word = self.word();
                let n = word.parse().map_err(|_| format!("`{word}` in `{{{}}}` is not a whole number below 2^63", self.text))?;
                self.operand(Op::Push(n))
            }
            Some(c) if c.is_ascii_alphabetic() || c == b'_' => {
                let word = self.word();
                self.operand(if word == "i" { Op::Index } else { Op::Column(word.into()) })
            }
            _ => Err(self.unexpected()),
        }
    }

    fn operand(&mut self, op: Op) -> Result<(), String> {
        self.pending += 1;
        if self.pending > STACK {
            return Err(format!("`{{{}}}` is nested too deeply", self.text));
        }
        self.ops.push(op);
        Ok(())
    }

    fn operator(&mut self, operator: u8) {
        self.pending -= 1;
        self.ops.push(Op::Binary(operator));
    }

    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn unexpected(&self) -> String {
        let found = self.text.get(self.at..).and_then(|rest| rest.chars().next());
        let found = found.map_or("end".to_owned(), |c| format!("`{c}`"));
        format!(
            "unexpected {found} in `{{{}}}`; allowed: whole numbers, i, columns of the table, + - * / % and parentheses",
            self.text
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Member(i64);

    impl Variables for Member {
        fn index(&self) -> Result<i64, String> {
            Ok(self.0)
        }
        fn column(&self, name: &str) -> Result<&str, String> {
            match name {
                "size" => Ok("4096"),
                "name" => Ok("db"),
                _ => Err(format!("no column `{name}`")),
            }
        }
    }

    fn expand(text: &str, i: i64) -> Result<String, String> {
        let mut out = String::new();
        Template::compile(text)?.expand(&Member(i), &mut out)?;
        Ok(out)
    }

    #[test]
    fn patterns_expand() {
        assert_eq!(expand("vm{i}", 7).unwrap(), "vm7");
        assert_eq!(expand("h{i/10}-{(i/10 + i%10) % 10}", 37).unwrap(), "h3-0");
        assert_eq!(expand("{4000 + 500*(i%7)} MB", 9).unwrap(), "5000 MB");
        assert_eq!(expand("{name}-{size*2} {{x}}", 0).unwrap(), "db-8192 {x}");
        assert_eq!(expand("{ -i - -2 }", 5).unwrap(), "-3");
        assert_eq!(expand("{7 - 2 - 1}", 0).unwrap(), "4");
        assert_eq!(expand("{i}{i}", 0).unwrap(), "00");
        assert_eq!(expand("{i}", i64::MIN).unwrap(), i64::MIN.to_string());
        assert_eq!(expand("{i}", i64::MAX).unwrap(), i64::MAX.to_string());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("vm{i", "without `}`"),
            ("vm}", "without `{`"),
            ("{i +}", "unexpected end"),
            ("{i $ 2}", "unexpected `$`"),
            ("{é}", "unexpected `é`"),
            ("{}", "unexpected end"),
            ("{(i}", "unexpected end"),
            ("{1/(i-i)}", "divides by zero"),
            ("{9223372036854775807 + 1}", "exceeds 64 bits"),
            ("{99999999999999999999}", "not a whole number"),
            ("{name + 1}", "not a whole number"),
            ("{other}", "no column"),
        ] {
            let message = expand(text, 1).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
        let deep = format!("{{{}i{}}}", "(".repeat(100), ")".repeat(100));
        assert!(expand(&deep, 1).unwrap_err().contains("nested too deeply"));
        let wide = format!("{{{}1{}}}", "1+(".repeat(31), ")".repeat(31));
        assert_eq!(expand(&wide, 1).unwrap(), "32");
    }

    /// An expression and its value; `None` where the arithmetic fails.
    fn expression() -> impl Strategy<Value = (String, Option<i64>)> {
        let leaf = prop_oneof![(0_i64..1000).prop_map(|n| (n.to_string(), Some(n))), Just(("i".to_owned(), Some(17)))];
        leaf.prop_recursive(4, 24, 2, |inner| {
            (inner.clone(), 0_usize..5, inner).prop_map(|((a, x), op, (b, y))| {
                let value = x.zip(y).and_then(|(x, y)| match op {
                    0 => x.checked_add(y),
                    1 => x.checked_sub(y),
                    2 => x.checked_mul(y),
                    3 => x.checked_div(y),
                    _ => x.checked_rem(y),
                });
                (format!("({a} {} {b})", ["+", "-", "*", "/", "%"][op]), value)
            })
        })
    }

    proptest! {
        #[test]
        fn expressions_mean_what_integers_mean((text, value) in expression()) {
            prop_assert_eq!(expand(&format!("{{{text}}}"), 17).ok(), value.map(|v| v.to_string()));
        }

        #[test]
        fn no_text_panics(text in "[{}()i0-9+*/% a-]{0,20}|\\PC{0,12}") {
            let _ = expand(&text, 3);
        }
    }
}
