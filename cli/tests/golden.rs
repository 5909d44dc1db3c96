//! What the program prints, word for word. After an intended change: `TRYCMD=overwrite cargo test -p livemig --test golden`.

#[test]
fn commands_print_what_they_printed() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}
