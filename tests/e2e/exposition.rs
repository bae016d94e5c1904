//! A reader of Prometheus's text format 0.0.4, written from its description and stricter than a scraper: what it takes, all take.

use std::collections::{BTreeMap, BTreeSet};

/// What one scrape says.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    /// Family and its type.
    pub types: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

/// Label and value, sorted.
pub type Labels = BTreeMap<String, String>;

impl Exposition {
    /// Reads a scrape; the error says what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut read = Self::default();
        let mut helped = BTreeSet::new();
        // The family whose samples come now; it must not come again.
        let mut current = String::new();
        if !text.ends_with('\n') {
            return Err("no line feed at the end".into());
        }
        for line in text.lines() {
            let wrong = |why: &str| Err(format!("{why}: {line}"));
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let Some((name, help)) = rest.split_once(' ') else { return wrong("no help") };
                if help.is_empty() || !helped.insert(name.to_owned()) {
                    return wrong("help is empty or comes twice");
                }
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let Some((name, kind)) = rest.split_once(' ') else { return wrong("no type") };
                if !is_name(name) || !["counter", "gauge"].contains(&kind) {
                    return wrong("no name or type");
                }
                if (kind == "counter") != name.ends_with("_total") {
                    return wrong("counters end with _total, nothing else does");
                }
                if !helped.contains(name) || read.types.insert(name.to_owned(), kind.to_owned()).is_some() {
                    return wrong("type without help, or twice");
                }
                name.clone_into(&mut current);
            } else {
                let (name, labels, value) = sample(line).ok_or_else(|| format!("no sample: {line}"))?;
                if name != current {
                    return wrong("a sample outside its family");
                }
                if read.types[&name] == "counter" && (value < 0.0 || value.is_nan()) {
                    return wrong("a counter below 0");
                }
                if read.samples.insert((name, labels), value).is_some() {
                    return wrong("a series comes twice");
                }
            }
        }
        let empty = read.types.keys().find(|name| !read.samples.keys().any(|(family, _)| family == *name));
        empty.map_or(Ok(()), |name| Err(format!("{name} has no sample")))?;
        Ok(read)
    }

    /// The sum of all series of a family that carry these labels.
    pub fn sum(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        assert!(self.types.contains_key(family), "no {family}");
        let carries = |of: &Labels| labels.iter().all(|(label, value)| of.get(*label).is_some_and(|has| has == value));
        self.samples.iter().filter(|((name, of), _)| name == family && carries(of)).map(|(_, value)| value).sum()
    }

    /// The values that a label has in a family.
    pub fn values(&self, family: &str, label: &str) -> BTreeSet<&str> {
        let of = self.samples.keys().filter(|(name, _)| name == family);
        of.filter_map(|(_, labels)| labels.get(label).map(String::as_str)).collect()
    }

    /// Names of series that count up and are less here than they were.
    pub fn gone_back_since(&self, earlier: &Self) -> Vec<String> {
        let counters = earlier.samples.iter().filter(|((name, _), _)| earlier.types[name] == "counter");
        let back = counters.filter(|(series, value)| self.samples.get(*series).is_none_or(|now| now < value));
        back.map(|(series, _)| format!("{series:?}")).collect()
    }
}

fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().enumerate().all(|(place, byte)| is_letter(byte) || place > 0 && byte.is_ascii_digit())
        && !name.is_empty()
}

/// `name{label="value",…} 1.5`
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            match after.split_at_checked(1)? {
                (",", after) => rest = after,
                ("}", after) => {
                    rest = after;
                    break;
                }
                _ => return None,
            }
        }
    }
    let value = rest.strip_prefix(' ')?;
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit() || b".-+e".contains(&byte));
    (is_name(name) && is_number).then_some(())?;
    Some((name.to_owned(), labels, value.parse().ok()?))
}

/// The text up to the closing quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((place, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[place + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_well_formed_is_read() {
        let text = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1\",y=\"\\\"\\n\"} 2\na_total{x=\"2\"} 3e2\n\
                    # HELP b B b.\n# TYPE b gauge\nb 0.5\n";
        let read = Exposition::read(text).unwrap();
        assert_eq!((read.sum("a_total", &[]), read.sum("a_total", &[("y", "\"\n")])), (302.0, 2.0));
        assert_eq!(read.values("a_total", "x"), BTreeSet::from(["1", "2"]));
        let later = Exposition::read(&text.replace("3e2", "299")).unwrap();
        assert_eq!(later.gone_back_since(&read).len(), 1);
        assert!(read.gone_back_since(&later).is_empty());
    }

    #[test]
    fn what_is_not_is_refused() {
        let good = "# HELP a A.\n# TYPE a gauge\n";
        for bad in [
            "a 1",
            "a 1\n\n",
            "a  1\n",
            "a one\n",
            "a NaN\n",
            "a{} 1\n",
            "a{x=1} 1\n",
            "a{x=\"1\" 1\n",
            "a{x=\"1\",} 1\n",
            "a{x=\"1\",x=\"2\"} 1\n",
            "a{x=\"\\q\"} 1\n",
            "a 1\na 1\n",
            "b 1\n",
            "",
            "a 1\n# HELP a A.\n",
            "a 1\n# HELP b B.\n# TYPE b counter\nb 1\n",
            "a 1\n# TYPE b gauge\nb 1\n",
        ] {
            assert!(Exposition::read(&format!("{good}{bad}")).is_err(), "{bad:?}");
        }
    }
}
