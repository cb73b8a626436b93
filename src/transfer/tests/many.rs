//! Many parts at a time: how many live, how many are under way, and those that nobody answers.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_whatever_the_size() {
    let mib = MIB as usize;
    for (size, memory, parallel, most) in [(mib, 3, 8, 3), (mib, 100, 2, 2), (2 * mib, 5, 8, 4), (3 * mib, 2, 8, 3)] {
        let source = Text { parts: vec![vec![7; size]; 24], ..Text::new(&[]) };
        let live = source.live.clone();
        let options = Options { memory: memory * MIB, parallel, ..options() };
        let fake = Arc::new(Forgetful::default());
        upload(fake.clone(), "b", "k", source, &options, &Silent).await.unwrap();
        assert_eq!(fake.bytes.load(Ordering::SeqCst), 24 * size as u64);
        let peak = live.1.load(Ordering::SeqCst);
        assert!(peak <= most * MIB, "{peak} bytes lived at a time");
        assert_eq!(live.0.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_slow_down_it_sends_fewer_at_a_time_and_then_more_again() {
    let source = Text { parts: vec![vec![7; 1000]; 80], ..Text::new(&[]) };
    let fake = Arc::new(Forgetful { crowd: Some(Crowd::of(8, 88)), ..Forgetful::default() });
    let options = Options { parallel: 8, ..options() };
    let sent = upload(fake.clone(), "b", "k", source, &options, &Silent);
    tokio::time::timeout(Duration::from_secs(60), sent).await.expect("in the end eight are sent at a time").unwrap();
    assert_eq!(fake.bytes.load(Ordering::SeqCst), 80_000);
    let beside = fake.crowd.as_ref().unwrap().beside.lock().unwrap();
    assert_eq!(beside.len(), 88);
    // The first eight are refused, which leaves one lane, and each success opens one more at most.
    assert_eq!(beside[..9], [1, 2, 3, 4, 5, 6, 7, 8, 1], "{beside:?}");
    assert!(beside[8..].iter().zip(1..).all(|(&live, most)| live <= most), "{beside:?}");
    assert!(beside[80..].contains(&8), "{beside:?}");
}

/// As behind a router that was restarted: nobody says that the connections are gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_never_answered_is_sent_again_over_another_connection() {
    let source = || Text { parts: vec![vec![7; 1000]; 20], ..Text::new(&[]) };
    let options = Options { parallel: 4, patience: Duration::from_millis(200), ..options() };
    let fake = Arc::new(Forgetful { silent: 8..12, ..Forgetful::default() });
    upload(fake.clone(), "b", "k", source(), &options, &Silent).await.unwrap();
    assert_eq!(fake.bytes.load(Ordering::SeqCst), 20_000);
    assert_eq!(fake.begun.load(Ordering::SeqCst), 24);

    let fake = Arc::new(Forgetful { silent: 8..u64::MAX, ..Forgetful::default() });
    let e = upload(fake.clone(), "b", "k", source(), &options, &Silent).await.unwrap_err();
    assert!(e.to_string().contains("no answer in"), "{e}");
    assert!(e.hint().is_some_and(|hint| hint.contains("the same command again")), "{e}");
}

/// A line on which nothing has arrived yet is measured with one part.
#[tokio::test(flavor = "multi_thread")]
async fn the_line_is_measured_with_one_part_at_first_and_more_as_they_arrive() {
    let source = || Arc::new(Text { parts: vec![vec![7; 1000]; 20], ..Text::new(&[]) });
    let numbers: Vec<u32> = (1..=8).collect();
    for (answered, begun) in [(0, 1), (1, 4), (2, 7), (8, 8)] {
        let fake = Arc::new(Forgetful { silent: answered..u64::MAX, ..Forgetful::default() });
        let (source, options) = (source(), options());
        let sent = first(fake.clone(), "b", "k", &source, &numbers, &options, &Silent);
        let sent = tokio::time::timeout(Duration::from_millis(300), sent).await;
        assert_eq!(sent.is_ok(), answered == 8);
        assert_eq!(fake.begun.load(Ordering::SeqCst), begun, "{answered} were answered");
    }
}

/// Lets the first requests in together and refuses them, and lets the last ones in together.
struct Crowd {
    size: usize,
    all: usize,
    together: tokio::sync::Barrier,
    /// Requests that are being answered.
    live: AtomicU64,
    /// How many those were whenever one began, itself included.
    beside: Mutex<Vec<u64>>,
}

impl Crowd {
    fn of(size: usize, all: usize) -> Self {
        let together = tokio::sync::Barrier::new(size);
        Crowd { size, all, together, live: AtomicU64::default(), beside: Mutex::default() }
    }

    /// Whether the request is one that is refused.
    async fn refused(&self) -> bool {
        let number = {
            let mut beside = self.beside.lock().unwrap();
            beside.push(self.live.fetch_add(1, Ordering::SeqCst) + 1);
            beside.len()
        };
        if number <= self.size || number > self.all - self.size {
            self.together.wait().await;
        }
        self.live.fetch_sub(1, Ordering::SeqCst);
        number <= self.size
    }
}

/// Takes everything, keeps only how many bytes it was.
#[derive(Default)]
struct Forgetful {
    bytes: AtomicU64,
    crowd: Option<Crowd>,
    /// Of the requests that come then, those that are never answered.
    silent: Range<u64>,
    begun: AtomicU64,
}

#[async_trait]
impl Objects for Forgetful {
    async fn bucket(&self, _: &str) -> Result<BucketState> {
        Ok(BucketState::Owned)
    }

    async fn bucket_tags(&self, _: &str) -> Result<crate::cloud::Map> {
        Ok(Default::default())
    }
    async fn head(&self, _: &str, _: &str) -> Result<Option<ObjectHead>> {
        Ok(None)
    }
    async fn get(&self, _: &str, _: &str) -> Result<Option<Bytes>> {
        Ok(None)
    }
    async fn read(&self, _: &str, _: &str, _: u64, _: u64, _: Option<&str>) -> Result<Option<ObjectPart>> {
        Ok(None)
    }
    async fn put(&self, _: &str, _: &str, _: Bytes, _: &PutOptions) -> Result<Written> {
        Ok(Written::Created)
    }
    async fn list(&self, _: &str, _: &str) -> Result<Vec<Listed>> {
        Ok(Vec::new())
    }
    async fn delete(&self, _: &str, _: &str) -> Result<()> {
        Ok(())
    }
    async fn copy(&self, _: &str, _: &str, _: &CopySource, _: &PutOptions) -> Result<Option<String>> {
        unreachable!("nothing is copied here")
    }
}

#[async_trait]
impl Uploads for Forgetful {
    async fn begin_upload(&self, _: &str, _: &str, _: &PutOptions) -> Result<String> {
        Ok("id".into())
    }
    async fn upload_part(&self, _: &str, _: &str, _: &str, number: u32, body: Bytes, crc: &str) -> Result<PartDone> {
        if self.silent.contains(&self.begun.fetch_add(1, Ordering::SeqCst)) {
            std::future::pending::<()>().await;
        }
        if let Some(crowd) = &self.crowd
            && crowd.refused().await
        {
            return Err(service("SlowDown", Some(503)));
        }
        let size = body.len() as u64;
        self.bytes.fetch_add(size, Ordering::SeqCst);
        Ok(PartDone { number, etag: String::new(), size, crc64nvme: crc.into() })
    }
    async fn copy_part(&self, _: &str, _: &str, _: &str, _: u32, _: &CopySource, _: Range<u64>) -> Result<PartDone> {
        unreachable!("nothing is copied here")
    }
    async fn complete_upload(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: &[PartDone],
        _: &str,
        _: u64,
        _: bool,
    ) -> Result<Written> {
        Ok(Written::Created)
    }
    async fn abort_upload(&self, _: &str, _: &str, _: &str) -> Result<()> {
        Ok(())
    }
    async fn open_uploads(&self, _: &str, _: &str) -> Result<Vec<OpenUpload>> {
        Ok(Vec::new())
    }
    async fn parts(&self, _: &str, _: &str, _: &str) -> Result<Vec<PartDone>> {
        Ok(Vec::new())
    }
}
