"""An audit as a CycloneDX bill of materials: the model as a component with its model card."""

import json
from pathlib import Path
from typing import Any

from emergraph.analysis.audit.result import AuditResult, Identity
from emergraph.errors import InvalidInputError, MissingExtraError
from emergraph.version import __version__

SPEC = "1.6"


def cyclonedx_document(result: AuditResult) -> dict[str, Any]:
    """Return an audit as a CycloneDX document of version 1.6, checked against its schema.

    Raises:
        MissingExtraError: cyclonedx-python-lib is not installed.
        InvalidInputError: The file was not read, so that there is nothing to list.
    """
    try:
        from cyclonedx.model import HashAlgorithm, HashType, Property
        from cyclonedx.model.bom import Bom
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError as error:
        raise MissingExtraError(
            "CycloneDX needs cyclonedx-python-lib: pip install 'emergraph[sbom]'"
        ) from error
    identity = result.identity
    if identity is None:
        raise InvalidInputError(
            f"{Path(result.path).name} was not read: a bill of materials has nothing to list"
        )
    properties = [Property(name=f"emergraph:{k}", value=str(v)) for k, v in _facts(identity, result).items()]
    model = Component(
        name=identity.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        version=identity.sha256[:12],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=identity.sha256)]
        if len(identity.sha256) == 64
        else [],
        properties=properties,
    )
    tool = Component(name="emergraph", type=ComponentType.APPLICATION, version=__version__, bom_ref="tool")
    bom = Bom(components=[model])
    bom.metadata.tools.components.add(tool)
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    (component,) = document["components"]
    component["modelCard"] = model_card(identity, result)
    if identity.licence:
        component["licenses"] = [{"license": {"name": identity.licence}}]
    _check(document)
    return document


def _facts(identity: Identity, result: AuditResult) -> dict[str, object]:
    facts: dict[str, object] = {
        "format": identity.format,
        "bytes": identity.bytes,
        "producer": identity.producer or "unknown",
    }
    facts |= {f"opset:{domain}": version for domain, version in identity.opsets.items()}
    if result.size is not None:
        facts |= {f"bytes:{name}": n for name, n in result.size.bytes_by_dtype.items()}
        if result.size.parameters is not None:
            facts["parameters"] = result.size.parameters
    return facts


def model_card(identity: Identity, result: AuditResult) -> dict[str, Any]:
    """Return the model card: what goes in and comes out, the guess, and findings as considerations."""
    parameters: dict[str, Any] = {
        "inputs": [{"format": f"{name}: {said}"} for name, said in identity.inputs.items()],
        "outputs": [{"format": name} for name in identity.outputs],
    }
    if identity.guess is not None:
        parameters["task"] = f"by guess: {identity.guess.task}"
        parameters["architectureFamily"] = f"by guess: {identity.guess.family}"
    findings = [
        f"{found.id} ({found.severity}, {found.grade}): {found.sentence}" for found in result.findings
    ]
    return {
        "modelParameters": parameters,
        "considerations": {"technicalLimitations": findings},
        "properties": [
            {"name": f"emergraph:finding:{found.fingerprint}", "value": found.id} for found in result.findings
        ],
    }


def _check(document: dict[str, Any]) -> None:
    """Hold the document against the schema that the library brings.

    Raises:
        ValueError: It does not fit: a fault of this program.
    """
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    if found is not None:
        raise ValueError(f"the CycloneDX document does not fit its schema: {found}")
