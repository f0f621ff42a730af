//! The sections and keys that systemd 249 knows (`man systemd.directives`), and the values it refuses.

use super::calendar::Calendar;
use super::span;

const UNIT: &str = "Description Documentation Requires Requisite Wants BindsTo PartOf Upholds Conflicts Before After OnFailure OnSuccess \
    PropagatesReloadTo ReloadPropagatedFrom PropagatesStopTo StopPropagatedFrom JoinsNamespaceOf RequiresMountsFor OnFailureJobMode \
    IgnoreOnIsolate StopWhenUnneeded RefuseManualStart RefuseManualStop AllowIsolate DefaultDependencies CollectMode FailureAction \
    SuccessAction FailureActionExitStatus SuccessActionExitStatus JobTimeoutSec JobRunningTimeoutSec JobTimeoutAction \
    JobTimeoutRebootArgument StartLimitIntervalSec StartLimitInterval StartLimitBurst StartLimitAction RebootArgument SourcePath";

/// After `Condition` or `Assert`.
const CONDITIONS: &str = "Architecture Virtualization Host KernelCommandLine KernelVersion Environment Security Capability ACPower \
    NeedsUpdate FirstBoot PathExists PathExistsGlob PathIsDirectory PathIsSymbolicLink PathIsMountPoint PathIsReadWrite PathIsEncrypted \
    DirectoryNotEmpty FileNotEmpty FileIsExecutable User Group ControlGroupController Memory CPUs CPUFeature OSRelease Firmware";

const INSTALL: &str = "Alias WantedBy RequiredBy Also DefaultInstance";

const TIMER: &str = "OnActiveSec OnBootSec OnStartupSec OnUnitActiveSec OnUnitInactiveSec OnCalendar AccuracySec RandomizedDelaySec \
    FixedRandomDelay OnClockChange OnTimezoneChange Unit Persistent WakeSystem RemainAfterElapse";

const SERVICE: &str = "Type ExitType RemainAfterExit GuessMainPID PIDFile BusName ExecStart ExecStartPre ExecStartPost ExecCondition ExecReload \
    ExecStop ExecStopPost RestartSec TimeoutStartSec TimeoutStopSec TimeoutAbortSec TimeoutSec TimeoutStartFailureMode \
    TimeoutStopFailureMode RuntimeMaxSec WatchdogSec Restart SuccessExitStatus RestartPreventExitStatus RestartForceExitStatus \
    RootDirectoryStartOnly NonBlocking NotifyAccess Sockets FileDescriptorStoreMax USBFunctionDescriptors USBFunctionStrings OOMPolicy \
    PermissionsStartOnly";

const EXEC: &str = "WorkingDirectory RootDirectory RootImage RootHash MountAPIVFS ProtectProc ProcSubset BindPaths BindReadOnlyPaths \
    MountImages ExtensionImages User Group DynamicUser SupplementaryGroups PAMName CapabilityBoundingSet AmbientCapabilities \
    NoNewPrivileges SecureBits SELinuxContext AppArmorProfile SmackProcessLabel LimitCPU LimitFSIZE LimitDATA LimitSTACK LimitCORE \
    LimitRSS LimitNOFILE LimitAS LimitNPROC LimitMEMLOCK LimitLOCKS LimitSIGPENDING LimitMSGQUEUE LimitNICE LimitRTPRIO LimitRTTIME UMask \
    CoredumpFilter KeyringMode OOMScoreAdjust TimerSlackNSec Personality IgnoreSIGPIPE Nice CPUSchedulingPolicy CPUSchedulingPriority \
    CPUSchedulingResetOnFork CPUAffinity NUMAPolicy NUMAMask IOSchedulingClass IOSchedulingPriority ProtectSystem ProtectHome \
    RuntimeDirectory StateDirectory CacheDirectory LogsDirectory ConfigurationDirectory RuntimeDirectoryMode StateDirectoryMode \
    CacheDirectoryMode LogsDirectoryMode ConfigurationDirectoryMode RuntimeDirectoryPreserve TimeoutCleanSec ReadWritePaths \
    ReadOnlyPaths InaccessiblePaths ReadWriteDirectories ReadOnlyDirectories InaccessibleDirectories ExecPaths NoExecPaths \
    TemporaryFileSystem PrivateTmp PrivateDevices PrivateNetwork NetworkNamespacePath PrivateIPC IPCNamespacePath PrivateUsers \
    ProtectHostname ProtectClock ProtectKernelTunables ProtectKernelModules ProtectKernelLogs ProtectControlGroups \
    RestrictAddressFamilies RestrictFileSystems RestrictNamespaces LockPersonality MemoryDenyWriteExecute RestrictRealtime \
    RestrictSUIDSGID RemoveIPC PrivateMounts MountFlags SystemCallFilter SystemCallErrorNumber SystemCallArchitectures SystemCallLog \
    Environment EnvironmentFile PassEnvironment UnsetEnvironment StandardInput StandardOutput StandardError StandardInputText \
    StandardInputData LogLevelMax LogExtraFields LogRateLimitIntervalSec LogRateLimitBurst LogNamespace SyslogIdentifier SyslogFacility \
    SyslogLevel SyslogLevelPrefix TTYPath TTYReset TTYVHangup TTYVTDisallocate LoadCredential LoadCredentialEncrypted SetCredential \
    SetCredentialEncrypted UtmpIdentifier UtmpMode";

const KILL_AND_RESOURCES: &str = "KillMode KillSignal RestartKillSignal SendSIGHUP SendSIGKILL FinalKillSignal WatchdogSignal Slice Delegate \
    CPUAccounting CPUWeight StartupCPUWeight CPUQuota CPUQuotaPeriodSec AllowedCPUs AllowedMemoryNodes CPUShares MemoryAccounting MemoryMin MemoryLow \
    MemoryHigh MemoryMax MemorySwapMax MemoryLimit TasksAccounting TasksMax IOAccounting IOWeight StartupIOWeight IODeviceWeight \
    IOReadBandwidthMax IOWriteBandwidthMax IOReadIOPSMax IOWriteIOPSMax IODeviceLatencyTargetSec BlockIOAccounting BlockIOWeight IPAccounting \
    IPAddressAllow IPAddressDeny IPIngressFilterPath IPEgressFilterPath BPFProgram SocketBindAllow SocketBindDeny \
    RestrictNetworkInterfaces DeviceAllow DevicePolicy DisableControllers ManagedOOMSwap ManagedOOMMemoryPressure \
    ManagedOOMMemoryPressureLimit ManagedOOMPreference";

/// Keys with a time span as their value.
const SPANS: &str = "OnActiveSec OnBootSec OnStartupSec OnUnitActiveSec OnUnitInactiveSec AccuracySec RandomizedDelaySec RestartSec TimeoutStartSec \
    TimeoutStopSec TimeoutAbortSec TimeoutSec RuntimeMaxSec WatchdogSec StartLimitIntervalSec JobTimeoutSec";

fn has(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|known| known == word)
}

/// Whether a unit of this name may have this section.
pub(super) fn section(unit: &str, section: &str) -> bool {
    match section {
        "Unit" | "Install" => true,
        "Service" => unit.ends_with(".service"),
        "Timer" => unit.ends_with(".timer"),
        _ => false,
    }
}

/// Whether a section knows this key.
pub(super) fn key(section: &str, key: &str) -> bool {
    match section {
        "Unit" => {
            let condition = key.strip_prefix("Condition").or(key.strip_prefix("Assert"));
            has(UNIT, key) || condition.is_some_and(|condition| has(CONDITIONS, condition))
        }
        "Install" => has(INSTALL, key),
        "Timer" => has(TIMER, key),
        "Service" => {
            has(SERVICE, key)
                || has(EXEC, key)
                || has(KILL_AND_RESOURCES, key)
                || has(
                    "StartLimitInterval StartLimitIntervalSec StartLimitBurst",
                    key,
                )
        }
        _ => false,
    }
}

/// What systemd says about a value it ignores.
pub(super) fn problem(key: &str, value: &str) -> Option<String> {
    if value.is_empty() {
        return None;
    }
    if has(SPANS, key) && span::parse(value).is_none() {
        return Some(if key.starts_with("On") {
            format!("Failed to parse timer value, ignoring: {value}")
        } else {
            format!("Failed to parse {key}= parameter, ignoring: {value}")
        });
    }
    let one_of = |values: &str| !has(values, value);
    match key {
        "OnCalendar" if Calendar::parse(value).is_none() => Some(format!(
            "Failed to parse calendar specification, ignoring: {value}"
        )),
        "Type" if one_of("simple exec forking oneshot dbus notify idle") => {
            Some(format!("Failed to parse service type, ignoring: {value}"))
        }
        "Restart" if one_of("no on-success on-failure on-abnormal on-watchdog on-abort always") => {
            Some(format!(
                "Failed to parse service restart specifier, ignoring: {value}"
            ))
        }
        "ProtectSystem" if one_of("yes true 1 on no false 0 off full strict") => Some(format!(
            "Failed to parse protect system value, ignoring: {value}"
        )),
        "ProtectHome" if one_of("yes true 1 on no false 0 off read-only tmpfs") => Some(format!(
            "Failed to parse protect home value, ignoring: {value}"
        )),
        "ExecStart" | "ExecStartPre" | "ExecStartPost" | "ExecStop" | "ExecStopPost"
        | "ExecReload" | "ExecCondition" => {
            let program = value.trim_start_matches(['-', '@', ':', '+', '!']);
            let program = program
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .trim_matches('"');
            (program.contains('/') && !program.starts_with('/'))
                .then(|| format!("Neither a valid executable name nor an absolute path: {program}"))
        }
        _ => None,
    }
}
