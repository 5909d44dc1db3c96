//! One migration of one real guest, on loopback: `migrate STRATEGY MIB WORKING_SET_MIB [STREAMS [MBIT_PER_S]]`.
//!
//! The guest writes to its working set without a pause, or is idle when that is 0. Nothing is zero and nothing is elided.
//! Prints a line of JSON.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use livemig_core::strategy::preset;
    use livemig_core::units::{Rate, Span};
    use livemig_exec::run::{Launch, Options, run};
    use livemig_models::world::Strategy;

    let args: Vec<String> = std::env::args().skip(1).collect();
    if args == ["agent"] {
        return Ok(livemig_exec::agent::serve_inherited()?);
    }
    let [name, memory, working_set, more @ ..] = args.as_slice() else { return Err("STRATEGY MIB WORKING_SET_MIB".into()) };
    let preset = preset(name).ok_or("no such strategy")?;
    let mut spec = (preset.spec)();
    spec.transfer.elide_zero_pages = false;
    if let Some(streams) = more.first() {
        spec.transfer.streams = streams.parse()?;
    }
    if let Some(limit) = more.get(1) {
        spec.transfer.limit = Some(Rate(limit.parse::<f64>()? * 1e6 / 8.0));
    }
    let workload = match working_set.as_str() {
        "0" => "kind = \"idle\"".to_owned(),
        mib => format!("kind = \"sequential\", working_set = \"{mib} MiB\", writes = \"1000000000 pages/s\""),
    };
    let text = format!(
        "schema = 1\nname = \"real\"\n[[host]]\nname = \"src\"\nnics = [{{ rate = \"10 Gbit/s\" }}]\n[[host]]\nname = \"dst\"\nnics = [{{ rate = \"10 Gbit/s\" }}]\n\
         [[vm]]\nname = \"vm\"\nhost = \"src\"\nmemory = \"{memory} MiB\"\nvcpus = 1\nworkload = {{ {workload} }}\n\
         [migrate]\nvms = [\"vm\"]\nto = \"dst\"\nat = \"10 s\"\nstrategies = [\"{name}\"]\n"
    );
    let loaded = livemig_models::scenario::parse(&text, std::path::Path::new("."), "real.toml")?;
    let launch = Launch { program: std::env::current_exe()?, args: vec!["agent".into()], env: Vec::new() };
    let options = Options { lead: Span::from_secs(2), observe: Span::from_millis(500), ..Options::new(launch) };
    let strategy = Strategy { name: name.clone(), preset: preset.name, spec };
    let result = run(&loaded.scenario.points[0].world, &strategy, 7, &options)?;
    let migration = &result.migrations[0];
    let ms = |span: Option<Span>| span.map_or("null".to_owned(), |s| format!("{:.3}", s.as_secs_f64() * 1e3));
    let m = &migration.metrics;
    println!(
        "{{\"strategy\": \"{name}\", \"outcome\": \"{}\", \"verified\": {}, \"total_ms\": {}, \"eviction_ms\": {}, \"downtime_ms\": {}, \"guest_gap_ms\": {}, \"baseline_gap_ms\": {}, \"rounds\": {}, \"bytes\": {}, \"faults\": {}, \"warnings\": {:?}}}",
        m.outcome.name(),
        migration.report.as_ref().is_some_and(livemig_exec::verify::Report::is_clean),
        ms(m.total_migration_time),
        ms(m.eviction_time),
        ms(m.downtime.map(|d| d.total)),
        ms(m.guest_gap),
        ms(migration.baseline_gap),
        m.rounds,
        (m.bytes.first + m.bytes.resent + m.bytes.demand + m.bytes.state + m.bytes.control).0,
        m.remote_faults,
        result.warnings,
    );
    Ok(())
}
