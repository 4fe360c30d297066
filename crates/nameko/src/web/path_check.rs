//! Check by the compiler that the parameters of a path are parameters of the method, for generated
//! code.

/// A parameter of an `#[http]` method.
pub struct HttpParam {
    name: &'static str,
    /// Whether it may be any parameter of the path.
    reads_path: bool,
}

impl HttpParam {
    /// Describes a parameter.
    pub const fn new(name: &'static str, reads_path: bool) -> Self {
        Self { name, reads_path }
    }
}

/// Fails the compilation if a parameter in the path of `method` has no parameter of its name,
/// unless a parameter may be any of them. The router reports an invalid path.
#[track_caller]
pub const fn check_path(path: &str, method: &str, params: &[HttpParam]) {
    let mut index = 0;
    while index < params.len() {
        if params[index].reads_path {
            return;
        }
        index += 1;
    }
    let mut rest = path.as_bytes();
    while let Some((name, tail)) = next_name(rest) {
        if !has(params, name) {
            fail(path, name, method, params);
        }
        rest = tail;
    }
}

/// Returns the first name in a path, and the rest of the path: `id` of `/a/{id}/b`, `rest` of
/// `/{*rest}`. Doubled braces are literals.
const fn next_name(mut path: &[u8]) -> Option<(&[u8], &[u8])> {
    loop {
        match path {
            [b'{', b'{', rest @ ..] => path = rest,
            [b'{', b'*', rest @ ..] | [b'{', rest @ ..] => return until_brace(rest),
            [_, rest @ ..] => path = rest,
            [] => return None,
        }
    }
}

const fn until_brace(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut end = 0;
    while end < path.len() {
        if path[end] == b'}' {
            let (name, rest) = path.split_at(end);
            return Some((name, rest));
        }
        end += 1;
    }
    None
}

const fn has(params: &[HttpParam], name: &[u8]) -> bool {
    let mut index = 0;
    while index < params.len() {
        if is_equal(params[index].name.as_bytes(), name) {
            return true;
        }
        index += 1;
    }
    false
}

const fn is_in_path(mut path: &[u8], name: &str) -> bool {
    while let Some((found, rest)) = next_name(path) {
        if is_equal(found, name.as_bytes()) {
            return true;
        }
        path = rest;
    }
    false
}

const fn is_equal(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

#[track_caller]
const fn fail(path: &str, name: &[u8], method: &str, params: &[HttpParam]) -> ! {
    let mut text = Text::new();
    text.push(b"the method `");
    text.push(method.as_bytes());
    text.push(b"` has no parameter `");
    text.push(name);
    text.push(b"` for the path `");
    text.push(path.as_bytes());
    let mut is_first = true;
    let mut index = 0;
    while index < params.len() {
        let other = params[index].name;
        if !is_in_path(path.as_bytes(), other) {
            text.push(if is_first { b"`, but has `" } else { b"`, `" });
            text.push(other.as_bytes());
            is_first = false;
        }
        index += 1;
    }
    text.push(match is_first {
        true => b"`: add it",
        false => b"`: rename one of them",
    });
    text.push(b", or take a `web::Request`");
    panic!("{}", text.as_str());
}

/// A text that is written while constants are evaluated. Truncates what is too long.
struct Text {
    bytes: [u8; Self::MAX_BYTES],
    len: usize,
}

impl Text {
    const MAX_BYTES: usize = 1024;

    const fn new() -> Self {
        Self {
            bytes: [0; Self::MAX_BYTES],
            len: 0,
        }
    }

    const fn push(&mut self, text: &[u8]) {
        let mut index = 0;
        while index < text.len() && self.len < Self::MAX_BYTES {
            self.bytes[self.len] = text[index];
            self.len += 1;
            index += 1;
        }
    }

    const fn as_str(&self) -> &str {
        let (text, _) = self.bytes.split_at(self.len);
        match std::str::from_utf8(text) {
            Ok(text) => text,
            // Truncated within a character.
            Err(error) => match std::str::from_utf8(text.split_at(error.valid_up_to()).0) {
                Ok(text) => text,
                Err(_) => "",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn names_are_those_between_single_braces() {
        for (path, expected) in [
            ("/", &[][..]),
            ("/a/{id}", &["id"]),
            ("/{a}/b/{*rest}", &["a", "rest"]),
            ("/{{a}}/{b}", &["b"]),
            ("/{a", &[]),
            ("/v{n}.json", &["n"]),
        ] {
            let mut names = Vec::new();
            let mut rest = path.as_bytes();
            while let Some((name, tail)) = next_name(rest) {
                names.push(std::str::from_utf8(name).unwrap());
                rest = tail;
            }
            assert_eq!(names, expected, "{path}");
        }
    }

    #[test]
    fn a_missing_parameter_is_named_with_its_path_and_candidates() {
        let failure = |path: &'static str, params: &'static [HttpParam]| {
            let panic = catch_unwind(|| check_path(path, "get", params)).err()?;
            panic.downcast::<String>().ok().map(|text| *text)
        };
        const NONE: &[HttpParam] = &[];
        const ONE: &[HttpParam] = &[HttpParam::new("iid", false)];
        const TWO: &[HttpParam] = &[HttpParam::new("a", false), HttpParam::new("b", false)];
        const WHOLE: &[HttpParam] = &[HttpParam::new("request", true)];
        for (path, params, expected) in [
            ("/x", NONE, None),
            ("/x/{iid}", ONE, None),
            ("/x/{id}", WHOLE, None),
            ("/x/{id}", NONE, Some("`id` for the path `/x/{id}`: add it")),
            (
                "/x/{id}",
                ONE,
                Some("`id` for the path `/x/{id}`, but has `iid`: rename one of them"),
            ),
            (
                "/{id}",
                TWO,
                Some("`id` for the path `/{id}`, but has `a`, `b`: rename one of them"),
            ),
            (
                "/{id}/{b}",
                TWO,
                Some("`id` for the path `/{id}/{b}`, but has `a`: rename one of them"),
            ),
        ] {
            let expected = expected.map(|text| {
                format!("the method `get` has no parameter {text}, or take a `web::Request`")
            });
            assert_eq!(failure(path, params), expected, "{path}");
        }
    }

    #[test]
    fn a_long_text_is_truncated_within_no_character() {
        let mut text = Text::new();
        text.push(&[b'x'; Text::MAX_BYTES - 1]);
        text.push("é".as_bytes());
        assert_eq!(text.as_str(), "x".repeat(Text::MAX_BYTES - 1));
    }
}
