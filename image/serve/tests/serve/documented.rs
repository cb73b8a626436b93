//! The table of options in `image/README.md` is what the program takes.

use clap::CommandFactory;
use comfy_serve::Cli;

/// Flag, environment variable and default of each option; empty where there is none.
type Row = [String; 3];

fn documented() -> Vec<Row> {
    let readme = include_str!("../../../README.md");
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    readme
        .lines()
        .filter(|line| line.starts_with("| `--"))
        .map(|line| {
            let mut cells = line.split('|').skip(1).map(cell);
            std::array::from_fn(|_| cells.next().expect("a cell"))
        })
        .collect()
}

fn taken() -> Vec<Row> {
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve").expect("a command");
    let options = serve.get_arguments().filter(|option| option.get_long().is_some_and(|flag| flag != "help"));
    options
        .map(|option| {
            let flag = format!("--{}", option.get_long().expect("a flag"));
            let variable = option.get_env().map(|name| name.to_string_lossy().into_owned());
            let defaults = option.get_default_values().iter().map(|value| value.to_string_lossy());
            // A switch is off.
            let default = defaults.filter(|_| option.get_action().takes_values()).collect::<Vec<_>>().join(" ");
            [flag, variable.expect("every option has a variable"), default]
        })
        .collect()
}

#[test]
fn the_options_are_documented() {
    assert_eq!(documented(), taken());
}
