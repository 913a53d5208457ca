//! `${NAME}`: what stands in the environment rather than in a file or in a command.

/// Replaces each `${NAME}` by the environment's value. `$${` stands for a plain `${`.
///
/// # Errors
/// What is wrong, and what to do about it.
pub fn expand(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, (String, String)> {
    let (mut rest, mut expanded) = (text, String::with_capacity(text.len()));
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            expanded.push_str(&rest[..at - 1]);
            expanded.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        expanded.push_str(&rest[..at]);
        let unclosed = || ("a `${` has no closing `}`".to_owned(), "write ${NAME}, or $${ for a plain ${".to_owned());
        let (name, after) = rest[at + 2..].split_once('}').ok_or_else(unclosed)?;
        let unset = || (format!("the environment has no variable `{name}`"), format!("set it, for example: export {name}=…"));
        expanded.push_str(&environment(name).ok_or_else(unset)?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}
