"""Weighted average explanations as an input of the classifier: our reading of a method that IMPACTX compares with."""

from sightline.guides.impactx import IMPACTX
from sightline.guides.registry import GUIDES


@GUIDES.register("wae")
class WAE(IMPACTX):
    """Weighted average explanations (WAE), by descriptions in other papers: the paper itself was not available.

    An encoder and decoder learn, from the image, e(x) = sum_k p_k(x) phi_k(x), the SHAP values of all classes k weighted by
    their probabilities: the explainer `weighted_shap`, whose stored maps this guide reads as IMPACTX reads its own. The
    encoder's code joins the model's logits before a linear classifier, and no decoder loss has a part in training that
    classifier: the code is a constant to the cross-entropy, and the map's error trains encoder and decoder alone.

    The networks are those of IMPACTX, so the two differ in the map that is learnt and in what the code learns from.

    The options are those of `IMPACTX`; `weight`, of the map's error, trains other parameters here than the cross-entropy does.

    References:
        Apicella et al., "SHAP-based explanations to improve classification systems" (XAI.it 2023).
        Apicella et al., "IMPACTX: improving model performance by appropriately constraining the training with teacher
            explanations" (Artificial Intelligence Review 2026), section 2, which describes it.
    """

    term = "wae"
    detached = True
