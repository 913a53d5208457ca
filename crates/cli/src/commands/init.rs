//! `cutover init`: a plan file to start from.

use std::{fs::OpenOptions, io::Write};

use crate::{
    args::{Global, Init},
    output::{Failure, to_stderr},
};

const TEMPLATE: &str = include_str!("init.toml");

pub(crate) fn run(global: &Global, args: &Init) -> Result<(), Failure> {
    let path = &global.plan;
    let mut options = OpenOptions::new();
    options.write(true);
    if args.force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let written = options.open(path).and_then(|mut file| file.write_all(TEMPLATE.as_bytes()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::usage(format!("{} exists already", path.display())).with_hint("--force overwrites it; --plan names another file")
        }
        _ => Failure::new(format!("can't write {}: {error}", path.display())),
    })?;
    to_stderr(&format!("wrote {}: fill in both URLs, then `cutover check`", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_template_is_a_plan() {
        let environment = |name: &str| (name == "SOURCE_PASSWORD" || name == "TARGET_PASSWORD").then(|| "secret".to_owned());
        let plan = cutover_core::Plan::parse(super::TEMPLATE, &environment).unwrap();
        assert_eq!(plan.name, "orders");
    }
}
