use super::*;
use crate::progress::Task;

fn at(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn board(resources: usize) -> Board {
    let mut board = Board::default();
    let mut apply = |second: u64, event: Event| {
        board.apply(&event, at(second));
    };
    apply(0, Event::Phase("Creating the service stack".into()));
    apply(0, Event::Begin { task: Task::Model, label: "packing and uploading".into(), total: Some(6 << 30) });
    for second in 1..=20 {
        apply(second, Event::Bytes { task: Task::Model, done: second * (100 << 20) });
    }
    apply(5, Event::Begin { task: Task::Image, label: "building with buildah".into(), total: None });
    apply(6, Event::Line { task: Task::Image, line: "STEP 3/9: RUN pip install".into() });
    apply(7, Event::Begin { task: Task::Function, label: "uploading".into(), total: Some(900_000) });
    apply(8, Event::End { task: Task::Function, summary: "879 KiB uploaded".into() });
    for n in 0..resources {
        let status = match n % 4 {
            0 => "CREATE_COMPLETE",
            1 => "CREATE_IN_PROGRESS",
            2 => "CREATE_COMPLETE",
            _ => "CREATE_FAILED",
        };
        apply(
            10 + n as u64,
            Event::Resource {
                stack: "comfy".into(),
                logical_id: format!("ComfyUIResource{n}"),
                kind: "AWS::SageMaker::EndpointConfig".into(),
                status: status.into(),
                reason: None,
            },
        );
    }
    apply(
        15,
        Event::Endpoint {
            name: "comfy".into(),
            status: "Creating".into(),
            stage: Some("downloading the model artifact".into()),
        },
    );
    apply(
        16,
        Event::Container(
            "[ComfyUI] Total VRAM 22888 MB, total RAM 15806 MB, pytorch version 2.8.0+cu128, xformers not available"
                .into(),
        ),
    );
    board
}

#[test]
fn a_screen_of_eighty_by_twenty_four() {
    let few = draw(&board(5), at(90), 80, 24, false).join("\n");
    let many = draw(&board(40), at(90), 80, 24, false).join("\n");
    insta::assert_snapshot!(format!("{few}\n-----\n{many}\n-----\n{}", summary(&board(5), at(90)).join("\n")));
}

proptest::proptest! {
    /// Nothing wraps and nothing scrolls, whatever the terminal's size.
    #[test]
    fn it_always_fits(width in 0usize..200, height in 0usize..60, resources in 0usize..60, colour: bool) {
        let rows = draw(&board(resources), at(1000), width, height, colour);
        proptest::prop_assert!(rows.len() < height.max(2));
        for row in rows {
            let plain = anstream::adapter::strip_str(&row).to_string();
            proptest::prop_assert!(columns(&plain) < width.max(MIN_WIDTH), "{plain}");
        }
    }

    #[test]
    fn cutting_keeps_to_the_columns(text in "\\PC{0,40}", width in 0usize..50) {
        proptest::prop_assert!(columns(&cut(&text, width)) <= width);
    }
}

#[test]
fn it_ends_once_and_takes_nothing_afterwards() {
    let clock: Clock = Arc::new(|| at(1));
    let screen = Screen::new(clock, false, Box::new(|| (80, 24)), ProgressDrawTarget::hidden());
    screen.report(Event::Phase("Planning".into()));
    screen.finish();
    screen.finish();
    screen.report(Event::Phase("Later".into()));
    assert_eq!(screen.lock().board.phase.as_ref().map(|(text, _)| text.as_str()), Some("Planning"));
}
