//! The order of plans and how they run, with steps that only note what happens to them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Barrier;
use tokio_util::sync::CancellationToken;

use super::*;

type Log = Arc<Mutex<Vec<String>>>;

struct Noted {
    name: &'static str,
    after: &'static [&'static str],
    log: Log,
    meets: Option<Arc<Barrier>>,
    fails: bool,
    waits_for_interrupt: bool,
}

impl Noted {
    fn new(name: &'static str, after: &'static [&'static str], log: &Log) -> Self {
        Self {
            name,
            after,
            log: Arc::clone(log),
            meets: None,
            fails: false,
            waits_for_interrupt: false,
        }
    }
}

#[async_trait]
impl Step for Noted {
    fn name(&self) -> &'static str {
        self.name
    }

    fn after(&self) -> &'static [&'static str] {
        self.after
    }

    fn describe(&self) -> String {
        self.name.to_owned()
    }

    async fn observe(&self) -> Result<Observation, StepError> {
        Ok(Observation::missing("note it"))
    }

    async fn apply(&self, run: &StepRun) -> Result<Outcome, StepError> {
        self.log.lock().unwrap().push(self.name.to_owned());
        if let Some(barrier) = &self.meets {
            barrier.wait().await;
        }
        if self.waits_for_interrupt {
            run.pause(Duration::from_secs(60)).await?;
        }
        if self.fails {
            return Err(StepError::Precondition {
                problem: "it fails".to_owned(),
                hint: String::new(),
            });
        }
        Ok(Outcome::Created(self.name.to_owned()))
    }

    async fn undo(&self, _run: &StepRun) -> Result<Vec<String>, StepError> {
        Ok(Vec::new())
    }
}

fn plan(steps: Vec<Noted>) -> Result<Plan, InvalidPlan> {
    Plan::new(
        steps
            .into_iter()
            .map(|step| Arc::new(step) as Arc<dyn Step>)
            .collect(),
    )
}

async fn observed(plan: &Plan) -> HashMap<&'static str, Observation> {
    plan.observe()
        .await
        .into_iter()
        .map(|(name, observed)| (name, observed.unwrap()))
        .collect()
}

#[test]
fn plans_without_an_order_are_refused() {
    let log = Log::default();
    let invalid = |steps| plan(steps).err().unwrap();
    assert_eq!(
        invalid(vec![
            Noted::new("a", &["b"], &log),
            Noted::new("b", &["a"], &log)
        ]),
        InvalidPlan::Cycle(vec!["a", "b"])
    );
    assert_eq!(
        invalid(vec![Noted::new("a", &[], &log), Noted::new("a", &[], &log)]),
        InvalidPlan::Duplicate("a")
    );
    assert_eq!(
        invalid(vec![Noted::new("a", &["z"], &log)]),
        InvalidPlan::Unknown {
            step: "a",
            after: "z"
        }
    );
}

#[tokio::test]
async fn independent_steps_run_at_the_same_time_and_dependent_ones_in_order() {
    let log = Log::default();
    // Both wait for each other: run one after the other, they would wait for ever.
    let meeting = Arc::new(Barrier::new(2));
    let mut left = Noted::new("left", &[], &log);
    let mut right = Noted::new("right", &[], &log);
    left.meets = Some(Arc::clone(&meeting));
    right.meets = Some(meeting);
    let plan = plan(vec![
        Noted::new("last", &["left", "right"], &log),
        left,
        right,
    ])
    .unwrap();
    let (events, _receiver) = Events::channel();
    let report = plan
        .run(&observed(&plan).await, &events, &CancellationToken::new())
        .await;
    assert!(report.failure.is_none());
    assert_eq!(log.lock().unwrap().last().unwrap(), "last");
    assert_eq!(report.steps.len(), 3);
}

#[tokio::test]
async fn after_a_failure_nothing_new_is_started() {
    let log = Log::default();
    let mut first = Noted::new("first", &[], &log);
    first.fails = true;
    let plan = plan(vec![first, Noted::new("second", &["first"], &log)]).unwrap();
    let (events, _receiver) = Events::channel();
    let report = plan
        .run(&observed(&plan).await, &events, &CancellationToken::new())
        .await;
    assert_eq!(report.failure.unwrap().0, "first");
    assert_eq!(*log.lock().unwrap(), ["first"]);
}

#[tokio::test]
async fn a_satisfied_step_is_not_applied() {
    let log = Log::default();
    let plan = plan(vec![
        Noted::new("first", &[], &log),
        Noted::new("second", &["first"], &log),
    ])
    .unwrap();
    let mut observed = observed(&plan).await;
    observed.insert("first", Observation::satisfied("there"));
    let (events, _receiver) = Events::channel();
    let report = plan
        .run(&observed, &events, &CancellationToken::new())
        .await;
    assert_eq!(*log.lock().unwrap(), ["second"]);
    assert_eq!(
        report.steps[0].outcome,
        Outcome::Unchanged("there".to_owned())
    );
}

#[tokio::test]
async fn an_interrupt_ends_waits_and_starts_nothing_new() {
    let log = Log::default();
    let mut waiting = Noted::new("waiting", &[], &log);
    waiting.waits_for_interrupt = true;
    let plan = plan(vec![waiting, Noted::new("next", &["waiting"], &log)]).unwrap();
    let (events, mut receiver) = Events::channel();
    let interrupt = CancellationToken::new();
    let observed = observed(&plan).await;
    let canceller = interrupt.clone();
    let (report, ()) = tokio::join!(plan.run(&observed, &events, &interrupt), async move {
        while let Some(event) = receiver.recv().await {
            if matches!(event, Event::StepStarted { .. }) {
                canceller.cancel();
                break;
            }
        }
    });
    assert!(matches!(
        report.failure,
        Some(("waiting", StepError::Interrupted))
    ));
    assert_eq!(*log.lock().unwrap(), ["waiting"]);
}

#[tokio::test]
async fn a_part_of_a_plan_waits_for_its_own_steps_only() {
    let log = Log::default();
    let steps = || -> Vec<Arc<dyn Step>> {
        vec![
            Arc::new(Noted::new("second", &["absent", "first"], &log)),
            Arc::new(Noted::new("first", &[], &log)),
        ]
    };
    assert!(Plan::new(steps()).is_err());
    let part = Plan::part(steps()).unwrap();
    let last = part.steps().last().unwrap();
    assert_eq!(part.after(last.as_ref()).collect::<Vec<_>>(), ["first"]);
    let (events, _receiver) = Events::channel();
    let report = part
        .run(&observed(&part).await, &events, &CancellationToken::new())
        .await;
    assert!(report.failure.is_none());
    assert_eq!(*log.lock().unwrap(), ["first", "second"]);
}
