"""The manifest by Kubernetes' own schemas, by yamllint, and by what it must say."""

import copy

import kubernetes_validate
import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from videmo_jax.pods.arguments import PodError
from videmo_jax.pods.jobset import Options, manifest, node_pool, to_yaml
from videmo_jax.pods.slices import slice_of

IMAGE = "us-docker.pkg.dev/my-project/videmo/train:1"
ARGUMENTS = ["--config=configs/curriculum.py:stage2", "--workdir=gs://my-bucket/run", "--config.data.include=('A_*',)"]
ALL = Options("team", "trainer", "tpu-queue", spot=True, host_network=True, restarts=3, grace_seconds=120)

CASES = {
    "one slice": ("v5p:4x4x4", 1, None),
    "one host": ("v6e:2x4", 1, None),
    "two slices": ("v5e:8x16", 2, None),
    "every option": ("v6e:8x8", 4, ALL),
}


def made(topology="v5p:4x4x4", num_slices=1, options=None, name="videmo", image=IMAGE, arguments=ARGUMENTS):
    return manifest(name, image, slice_of(topology), num_slices, arguments, options)


def job_of(document):
    """The Job that JobSet makes of its template."""
    (replicated,) = document["spec"]["replicatedJobs"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "slice-0"}} | replicated["template"]


@pytest.mark.parametrize("case", CASES)
def test_what_is_printed_passes_the_linter_and_the_schemas(case):
    topology, num_slices, options = CASES[case]
    document = made(topology, num_slices, options)
    text = to_yaml(document, ["what it runs on"])
    rules = YamlLintConfig("extends: default")
    assert [str(problem) for problem in linter.run(text, rules)] == []
    read = yaml.safe_load(text)
    assert read == document
    for version in ("1.28", "1.31", "1.34"):
        kubernetes_validate.validate(job_of(read), version, strict=True)


def test_the_schema_would_see_a_mistake():
    wrong = copy.deepcopy(made())
    wrong["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["hostNet"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="hostNet"):
        kubernetes_validate.validate(job_of(wrong), "1.31", strict=True)


def test_two_slices_of_v5e():
    document = made("v5e:8x16", 2)
    assert (document["apiVersion"], document["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert document["metadata"]["annotations"] == {
        "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
    }
    spec = document["spec"]
    assert spec.keys() == {"network", "failurePolicy", "replicatedJobs"}
    assert spec["network"]["enableDNSHostnames"] is True
    (replicated,) = spec["replicatedJobs"]
    assert replicated["replicas"] == 2
    job = replicated["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (32, 32, 0)
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "8x16",
    }
    assert pod["terminationGracePeriodSeconds"] == 300
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == container["resources"]["requests"] == {"google.com/tpu": 4}
    assert container["command"] == ["python", "launch/train.py"]
    assert container["args"] == ARGUMENTS
    assert {port["containerPort"] for port in container["ports"]} == {8471, 8482, 8431}


def test_interruptions_restart_all_without_being_counted_and_failures_up_to_a_limit():
    spec = made(options=Options(restarts=7))["spec"]
    assert spec["failurePolicy"]["maxRestarts"] == 7
    (rule,) = spec["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    saved, evicted = job["podFailurePolicy"]["rules"]
    assert saved["onExitCodes"]["values"] == [143]
    assert saved["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
    assert [condition["type"] for condition in evicted["onPodConditions"]] == ["DisruptionTarget"]
    assert saved["action"] == evicted["action"] == "FailJob"
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # a failure policy of Pods asks for it


def test_options_are_where_kubernetes_looks_for_them():
    document = made("v6e:8x8", 4, ALL)
    assert document["metadata"]["namespace"] == "team"
    assert document["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "tpu-queue"}
    pod = job_of(document)["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["hostNetwork"]) == ("trainer", True)
    assert pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod["tolerations"][0]["key"] == "cloud.google.com/gke-spot"
    assert pod["terminationGracePeriodSeconds"] == 120


def test_kubernetes_does_not_fill_in_variables_and_yaml_keeps_every_letter():
    arguments = ["--config.a=$(HOME)", "--config.b=yes: no # x", "--config.c='\"{}[]&*!|>%@`"]
    read = yaml.safe_load(to_yaml(made(arguments=arguments)))
    (container,) = job_of(read)["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["--config.a=$$(HOME)", *arguments[1:]]


def test_the_nodes_of_a_slice_are_made_by_one_command():
    assert " ".join(node_pool("POOL", slice_of("v5p:4x4x4"), spot=True)) == (
        "gcloud container node-pools create POOL --cluster=CLUSTER --location=LOCATION --node-locations=ZONE "
        "--machine-type=ct5p-hightpu-4t --tpu-topology=4x4x4 --num-nodes=16 --spot"
    )


def test_the_longest_name_still_gives_pods_of_63_characters():
    longest = "v" * 63
    while longest:
        try:
            made("v5e:8x16", 16, name=longest)
            break
        except PodError:
            longest = longest[:-1]
    assert len(f"{longest}-slice-15-31-abcde") == 63


WRONG = {
    "a name with capitals": ({"name": "VidEmo"}, "--name 'VidEmo'"),
    "a name that begins with a digit": ({"name": "7b"}, "a letter first"),
    "a name with a newline": ({"name": "videmo\n"}, "--name"),
    "an image with a space": ({"image": "videmo; rm"}, "--image 'videmo; rm'"),
    "no slices": ({"num_slices": 0}, "give 1 to 256"),
    "slices of one host": ({"topology": "v5e:2x4", "num_slices": 2}, "a slice of one host"),
    "a namespace with a dot": ({"options": Options(namespace="a.b")}, "--namespace 'a.b'"),
    "restarts below 0": ({"options": Options(restarts=-1)}, "--restarts"),
    "no time to save": ({"options": Options(grace_seconds=0)}, "--grace-seconds"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_kubernetes_would_refuse_is_refused(wrong):
    fields, said = WRONG[wrong]
    with pytest.raises(PodError, match=said):
        made(**fields)


@pytest.mark.parametrize(
    "image", ["train", "localhost:5000/train", "gcr.io/p/train:v1.2_3", "gcr.io/p/a/b@sha256:" + "0" * 64]
)
def test_images_as_registries_name_them(image):
    assert job_of(made(image=image))["spec"]["template"]["spec"]["containers"][0]["image"] == image
